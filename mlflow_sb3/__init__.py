"""MLflow flavor for Stable-Baselines3: log, load, evaluate and promote agents.

A logged agent is an ONNX graph. To load and run it, you need neither PyTorch nor unpickling.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow_sb3.autologging.autolog import autolog
    from mlflow_sb3.autologging.callback import MlflowCallback
    from mlflow_sb3.exchange.agent_export import export_agent
    from mlflow_sb3.exchange.agent_import import import_agent
    from mlflow_sb3.flavor.api import (
        get_default_pip_requirements,
        load_model,
        load_policy,
        log_model,
        save_model,
    )
    from mlflow_sb3.lifecycle.evaluate import evaluate, make_episode_seeds
    from mlflow_sb3.lifecycle.promote import promote
    from mlflow_sb3.lifecycle.rollback import rollback
    from mlflow_sb3.lifecycle.train import train

__all__ = [
    "MlflowCallback",
    "autolog",
    "evaluate",
    "export_agent",
    "get_default_pip_requirements",
    "import_agent",
    "load_model",
    "load_policy",
    "log_model",
    "make_episode_seeds",
    "promote",
    "rollback",
    "save_model",
    "train",
]
_MODULES = {
    "MlflowCallback": "mlflow_sb3.autologging.callback",
    "autolog": "mlflow_sb3.autologging.autolog",
    "evaluate": "mlflow_sb3.lifecycle.evaluate",
    "export_agent": "mlflow_sb3.exchange.agent_export",
    "import_agent": "mlflow_sb3.exchange.agent_import",
    "make_episode_seeds": "mlflow_sb3.lifecycle.evaluate",
    "promote": "mlflow_sb3.lifecycle.promote",
    "rollback": "mlflow_sb3.lifecycle.rollback",
    "train": "mlflow_sb3.lifecycle.train",
}
"""Modules of the names that are not in ``mlflow_sb3.flavor``."""
__version__ = "0.2.0"


def __dir__() -> list[str]:
    """Return the public names. They are imported on first use."""
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import mlflow_sb3`` is fast."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULES.get(name, "mlflow_sb3.flavor")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise ImportError(
            f"{name} is missing in {__path__[0]}, which is the code of a logged model. "
            "Install mlflow-sb3, and import mlflow_sb3 before you load a model."
        ) from error
