"""Define the commands of the steps, for ``mlflow run``, ``python -m steps.<name>`` and the console.

Each command parses its options, calls the library, and prints the result.
"""

# Read the ids of the parent processes before the slow imports of a step, because a parent that
# exits in the meantime could not be identified afterwards.
from mlflow_sb3.runs import parent_process

__all__ = ["parent_process"]
