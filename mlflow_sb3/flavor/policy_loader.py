"""Open the policy in a model's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException

from mlflow_sb3.inference import agent_files
from mlflow_sb3.inference.agent_files import AGENT_DIR, AGENT_JSON
from mlflow_sb3.inference.onnx_policy import OnnxPolicy

if TYPE_CHECKING:
    from mlflow_sb3.flavor.sb3_policy import SB3AgentPolicy


def open_policy(folder: Path) -> OnnxPolicy | SB3AgentPolicy:
    """Open the policy in a model's folder.

    Raises:
        MlflowException: There is none, its files are not those that were saved, or it has to be unpickled and that is forbidden.
    """
    try:
        card = read_card(folder)
        if card["inference"] == "onnx":
            return OnnxPolicy.load(folder / AGENT_DIR)
        agent_files.check_unpickling_allowed("an agent of inference=native")
        from mlflow_sb3.flavor import sb3_policy

        return sb3_policy.SB3AgentPolicy(folder / AGENT_DIR, card)
    except (KeyError, OSError, ValueError) as error:
        raise MlflowException.invalid_parameter_value(
            f"the model holds no agent that can be loaded: {error}"
        ) from error


def read_card(folder: Path) -> dict[str, Any]:
    """What stands in a model's folder about its agent.

    Raises:
        MlflowException: The model holds no agent.
    """
    try:
        card: dict[str, Any] = json.loads((folder / AGENT_DIR / AGENT_JSON).read_text())
    except (OSError, ValueError) as error:
        raise MlflowException.invalid_parameter_value(
            f"the model holds no agent that can be loaded: {error}"
        ) from error
    return card
