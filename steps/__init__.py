"""The entry points of the MLflow Project, one script each; run them with ``mlflow run`` or ``python -m steps.<name>``."""

from mlflow_sb3 import ancestry

__all__ = ["ancestry"]
