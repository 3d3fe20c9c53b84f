"""MLflow flavor for Stable-Baselines3: agents that load without unpickling and act without PyTorch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow_sb3.flavor.api import get_default_pip_requirements, load_model, load_policy, log_model, save_model

__all__ = ["get_default_pip_requirements", "load_model", "load_policy", "log_model", "save_model"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """Load the flavor when it is asked for, so that a module of the package costs only what it imports itself."""
    if name in __all__:
        return getattr(importlib.import_module("mlflow_sb3.flavor"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
