"""Check how ``mlflow.pyfunc`` loads a model."""

from __future__ import annotations

from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.models import Model

LOADER_MODULE = "mlflow_sb3.flavor"
"""Module that ``mlflow.pyfunc`` imports to load a model."""
CODE_DIR = "code"
"""Folder of a model that ``mlflow.pyfunc`` imports modules from."""
_PYFUNC_KEYS = frozenset({"code", "env", "loader_module", "python_version", "streamable"})
"""Entries that this package writes for the flavor ``python_function``.

Other entries could make MLflow load more files.
"""


def check_loader(name: str, folder: Path) -> None:
    """Check that MLflow loads a model with this package only, and not from a pickled Python model.

    Args:
        name: Name of the model for the error message.
        folder: Folder with the file MLmodel.

    Raises:
        MlflowException: MLmodel names another loader, other code or a pickled Python model.
    """
    flavor = Model.load(str(folder)).flavors.get("python_function", {})
    is_ours = flavor.get("loader_module") == LOADER_MODULE and flavor.get("code") == CODE_DIR
    if not is_ours or not flavor.keys() <= _PYFUNC_KEYS:
        raise MlflowException.invalid_parameter_value(
            f"{name} cannot be served: its file MLmodel does not load the agent with "
            f"{LOADER_MODULE} alone. Log the agent again."
        )
