"""The files of an ``agent`` folder, and the card among them: what it says of the others."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from mlflow.environment_variables import MLFLOW_ALLOW_PICKLE_DESERIALIZATION
from mlflow.exceptions import MlflowException

AGENT_DIR = "agent"
AGENT_JSON = "agent.json"
POLICY_ONNX = "policy.onnx"
AGENT_ZIP = "agent.zip"
VEC_NORMALIZE_JSON = "vec_normalize.json"


def check_file_digest(card: dict[str, Any], name: str, content: bytes) -> None:
    """Refuse a file of an agent that is not the one which its card was written for."""
    found, saved = hashlib.sha256(content).hexdigest(), card["digests"][name]
    if found != saved:
        raise ValueError(
            f"{name} has the digest {found}, but {saved} was saved: the file has changed; save the agent again."
        )


def env_spec_json(card: dict[str, Any]) -> str | None:
    """The ``EnvSpec`` JSON in a card."""
    description = card.get("environment")
    return None if description is None else json.dumps(description)


def check_unpickling_allowed(what: str) -> None:
    """Refuse where MLflow was told to unpickle nothing."""
    if not MLFLOW_ALLOW_PICKLE_DESERIALIZATION.get():  # type: ignore[no-untyped-call]
        raise MlflowException.invalid_parameter_value(
            f"{what} would unpickle, and MLFLOW_ALLOW_PICKLE_DESERIALIZATION is false; allow it where you trust the file."
        )
