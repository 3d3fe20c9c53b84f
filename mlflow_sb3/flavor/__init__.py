"""MLflow flavor: save, log and load agents.

``MLmodel`` has this package as ``loader_module``. A logged model carries a copy of this module.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow_sb3.flavor.api import (
        get_default_pip_requirements,
        load_model,
        load_policy,
        log_model,
        save_model,
    )
    from mlflow_sb3.inference.pyfunc import PolicyModel

__all__ = ["get_default_pip_requirements", "load_model", "load_policy", "log_model", "save_model"]
_API = "mlflow_sb3.flavor.api"


def __getattr__(name: str) -> Any:
    """Import the public functions on first use. A logged model does not carry them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_API), name)
    except ModuleNotFoundError as error:
        if error.name != _API:
            raise
        raise ImportError(
            f"{name} is missing in {Path(__file__).parent}, which is the code of a logged model. "
            "Install mlflow-sb3, and import mlflow_sb3 before you load a model."
        ) from error


def _load_pyfunc(
    path: str,
    model_config: dict[str, Any] | None = None,  # noqa: ARG001 MLflow passes it
) -> PolicyModel:
    """Load the model in a folder; ``mlflow.pyfunc.load_model`` calls this function."""
    from mlflow_sb3.flavor.policy_loader import open_policy
    from mlflow_sb3.inference.pyfunc import PolicyModel

    return PolicyModel(open_policy(Path(path)))
