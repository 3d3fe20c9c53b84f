"""MLflow's flavor of Stable-Baselines3: save, log and load agents."""

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


def __getattr__(name: str) -> Any:
    """Import the public functions when they are first used, because they need more than a served model has."""
    if name in __all__:
        return getattr(importlib.import_module("mlflow_sb3.flavor.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> PolicyModel:  # noqa: ARG001 MLflow passes it
    """Open a model's folder. ``mlflow.pyfunc.load_model`` calls this by the ``loader_module`` in MLmodel."""
    from mlflow_sb3.flavor.policy_loader import open_policy
    from mlflow_sb3.inference.pyfunc import PolicyModel

    return PolicyModel(open_policy(Path(path)))
