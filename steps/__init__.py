"""Define the steps of the MLflow Project, for ``mlflow run`` or ``python -m steps.<name>``."""

# Read the ids of the parent processes before the slow imports of a step, because a parent that
# exits in the meantime could not be identified afterwards.
from mlflow_sb3.runs import parent_process

__all__ = ["parent_process"]
