"""Log metrics, parameters, files and snapshots of a training run to MLflow in the background."""
