"""Open the policy in the folder of a model. A logged model carries a copy of this module."""

from __future__ import annotations

from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from mlflow_sb3.inference import agent_files
from mlflow_sb3.inference.agent_files import AGENT_DIR, AgentInfo
from mlflow_sb3.inference.policy_protocol import AgentPolicy

_DAMAGE_ERRORS = (AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)
"""Exceptions that damaged files of an agent can cause."""


def open_policy(folder: Path, *, is_trusted: bool = False) -> AgentPolicy:
    """Open the policy in the folder of a model.

    Args:
        folder: Folder of the model.
        is_trusted: Whether the user trusts the author of the model; see
            ``agent_files.is_unpickling_allowed``.

    Returns:
        ``OnnxPolicy``, or ``SB3AgentPolicy`` for a model with ``inference="native"``.

    Raises:
        MlflowException: ``agent.json`` is missing, invalid, or in a newer format. Another file is
            missing or has changed since it was saved. Or the agent must be unpickled, and that is
            not allowed.
    """
    info = read_agent_info(folder)
    try:
        if info.inference == "onnx":
            # A model with native inference does not carry this module.
            from mlflow_sb3.inference.onnx_policy import OnnxPolicy

            return OnnxPolicy.load(folder / AGENT_DIR)
        agent_files.check_unpickling_allowed(
            "Loading an agent with inference=native", is_trusted=is_trusted
        )
        # Import SB3 and PyTorch only for native inference. ONNX inference needs neither.
        from mlflow_sb3.flavor import sb3_policy

        return sb3_policy.SB3AgentPolicy(folder / AGENT_DIR, info)
    except _DAMAGE_ERRORS as error:
        raise _no_agent(error) from error


def read_agent_info(folder: Path) -> AgentInfo:
    """Read ``agent.json`` in the folder of a model.

    Raises:
        MlflowException: The file is missing, invalid, or in a newer format.
    """
    try:
        return AgentInfo.read(folder / AGENT_DIR)
    except _DAMAGE_ERRORS as error:
        raise _no_agent(error) from error


def _no_agent(error: Exception) -> MlflowException:
    return MlflowException(
        f"The agent of this model cannot be loaded: {str(error) or type(error).__name__}",
        INVALID_PARAMETER_VALUE,
    )
