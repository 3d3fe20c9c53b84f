"""The entry points of the MLflow Project, one script each; run them with ``mlflow run`` or ``python -m steps.<name>``."""

import atexit
import gc

from mlflow_sb3.runs import parent_process

__all__ = ["parent_process"]

# What a step imports is a million objects that stay until it ends. By Python's default of 700, looking for garbage among them takes
# a quarter of the time of the imports, and the interpreter's last look a second.
gc.set_threshold(50_000)
atexit.register(gc.freeze)
