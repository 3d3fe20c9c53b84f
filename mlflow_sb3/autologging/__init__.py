"""Log a training in one's own script: ``MlflowCallback`` and ``autolog``."""
