"""Check that the packages of the extra ``[train]`` are installed."""

from __future__ import annotations

import importlib.util

from mlflow.exceptions import MlflowException

PACKAGES = ("stable_baselines3", "sb3_contrib", "torch", "onnx", "onnxscript")
"""Import names of the packages that ``log_model`` needs.

``load_policy`` needs none of them for an exported agent.
"""


def check_train_extra(action: str) -> None:
    """Check that the packages of the extra are installed.

    Args:
        action: The function that needs them, for the error message.

    Raises:
        MlflowException: A package is missing.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise MlflowException.invalid_parameter_value(
            f"{action} needs {', '.join(missing)}. Run: pip install 'mlflow-sb3[train]'"
        )
