"""The entry points of the MLflow Project, one script each; run them with ``mlflow run`` or ``python -m steps.<name>``."""

import gc

from mlflow_sb3 import ancestry

__all__ = ["ancestry"]

gc.set_threshold(50_000)
# what a step imports is a million objects that stay: by Python's default of 700, looking for garbage among them took a quarter of the time
