"""Define ``agent.json``, which describes the other files in the ``agent`` folder, and read it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self, get_args

from mlflow.environment_variables import MLFLOW_ALLOW_PICKLE_DESERIALIZATION
from mlflow.exceptions import MlflowException

from mlflow_sb3.inference.policy_inputs import SpaceInfo

AGENT_DIR = "agent"
AGENT_JSON = "agent.json"
POLICY_ONNX = "policy.onnx"
AGENT_ZIP = "agent.zip"
VEC_NORMALIZE_JSON = "vec_normalize.json"
SCHEMA = 1
"""Version of the format of ``agent.json``. A file without the key ``schema`` has version 1."""

InferenceBackend = Literal["onnx", "native"]
"""``"onnx"`` runs the exported graph, ``"native"`` runs SB3 itself."""


@dataclass(frozen=True)
class Parity:
    """Agreement of an exported graph with Stable-Baselines3."""

    observations: int
    """Number of observations that were compared."""
    observations_from_episodes: int
    """Number of these observations that come from episodes of the agent."""
    max_difference: float
    """Largest difference between the graph and SB3.

    Differences of continuous actions are relative to the range of the action space. For discrete
    actions, the Q-values or logits are compared. If the largest absolute Q-value or logit of SB3
    exceeds 1, the differences are divided by it. Differences of LSTM states are absolute.
    """
    ties: int
    """Number of discrete actions that differ although SB3 rates both actions as equally good."""


@dataclass(frozen=True)
class AgentInfo:
    """Content of ``agent.json``."""

    algorithm: str
    """Class of the SB3 algorithm, as ``module.Class``."""
    observation_space: SpaceInfo
    action_space: SpaceInfo
    versions: dict[str, str]
    """Versions of the installed packages, by import name."""
    digests: dict[str, str]
    """SHA-256 of the other files in the folder, by file name."""
    inference: InferenceBackend
    environment: dict[str, Any] | None = None
    """``EnvSpec`` of the training environment. None if it is unknown."""
    example_action: list[Any] | None = None
    """Actions for the default input example. None if the model was logged with another example."""
    distribution: dict[str, Any] | None = None
    """Action distribution of an exported graph (see ``action_sampling``)."""
    parity: Parity | None = None
    """Agreement of an exported graph with SB3."""

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read the values of ``agent.json``. Unknown keys are ignored.

        Raises:
            ValueError: The file has a newer format, or a key is missing.
        """
        if values.get("schema", SCHEMA) != SCHEMA:
            raise ValueError(
                f"{AGENT_JSON} has the schema {values['schema']!r}, but this version of mlflow-sb3 "
                f"reads only schema {SCHEMA}. Install a newer version of mlflow-sb3."
            )
        # The first files have no backend, because only the exported graph existed.
        values = {"inference": "onnx"} | values
        if values["inference"] not in get_args(InferenceBackend):
            raise ValueError(
                f"{AGENT_JSON} has the inference backend {values['inference']!r}, but only "
                f"{' and '.join(get_args(InferenceBackend))} exist. Save the agent again."
            )
        for name in ("digests", "distribution", "environment", "versions"):
            if not isinstance(values.get(name), dict | None):
                raise ValueError(f"{name} in {AGENT_JSON} is no JSON object. Save the agent again.")
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        try:
            return cls(**known | _read_nested(known))
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{AGENT_JSON} is incomplete: {error}. Save the agent again."
            ) from error

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the ``agent.json`` of an ``agent`` folder.

        Raises:
            OSError: There is no such file.
            ValueError: The file is no JSON object, has a newer format, or lacks a key.
        """
        values = json.loads((folder / AGENT_JSON).read_text())
        if not isinstance(values, dict):
            raise ValueError(f"{AGENT_JSON} is no JSON object. Save the agent again.")
        return cls.from_json(values)

    def to_json(self) -> dict[str, Any]:
        """Return the values of ``agent.json``.

        Without an ONNX export, the keys ``distribution`` and ``parity`` are left out.
        """
        values = {"schema": SCHEMA} | asdict(self)
        for name in ("distribution", "parity"):
            if values[name] is None:
                del values[name]
        return values

    @property
    def env_spec_json(self) -> str | None:
        """``EnvSpec`` JSON of the training environment. None if it is unknown."""
        return None if self.environment is None else json.dumps(self.environment)

    def check_digest(self, name: str, content: bytes) -> None:
        """Check that a file of the folder has not changed since the agent was saved.

        Raises:
            ValueError: The SHA-256 of ``content`` differs from the saved SHA-256.
        """
        digest, saved = hashlib.sha256(content).hexdigest(), self.digests.get(name)
        if digest != saved:
            raise ValueError(
                f"{name} has changed since it was saved (digest {digest}, expected {saved}). "
                "Save the agent again."
            )


def _read_nested(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values that are dataclasses in ``AgentInfo``, built from their JSON."""
    nested: dict[str, Any] = {
        name: SpaceInfo.from_json(values[name])
        for name in ("observation_space", "action_space")
        if name in values
    }
    if values.get("parity") is not None:
        nested["parity"] = Parity(**values["parity"])
    return nested


def is_unpickling_allowed(*, is_trusted: bool) -> bool:
    """Return whether a file may be unpickled.

    ``MLFLOW_ALLOW_PICKLE_DESERIALIZATION=true`` allows it for all files, and ``false`` for none. If
    the variable is not set, only trusted files may be unpickled.

    Args:
        is_trusted: Whether the user trusts the author of the file.
    """
    variable = MLFLOW_ALLOW_PICKLE_DESERIALIZATION
    if not variable.get():  # type: ignore[no-untyped-call]
        return False
    return is_trusted or variable.is_set()  # type: ignore[no-untyped-call]


def check_unpickling_allowed(action: str, *, is_trusted: bool, files: str = "a file") -> None:
    """Check that a file may be unpickled; see ``is_unpickling_allowed``.

    Args:
        action: Start of the error message, such as "Resuming run 3f". The message goes on with
            "would unpickle" and the files.
        is_trusted: Whether the user trusts the author of the file.
        files: The files that would be unpickled, for the error message.

    Raises:
        MlflowException: The file may not be unpickled.
    """
    if is_unpickling_allowed(is_trusted=is_trusted):
        return
    name = MLFLOW_ALLOW_PICKLE_DESERIALIZATION.name
    if not MLFLOW_ALLOW_PICKLE_DESERIALIZATION.get():  # type: ignore[no-untyped-call]
        raise MlflowException.invalid_parameter_value(
            f"{action} would unpickle {files}, but {name} is false. If you trust the file, set the "
            "variable to true."
        )
    raise MlflowException.invalid_parameter_value(
        f"{action} would unpickle {files}, which can run any code. If you trust its author, pass "
        f"allow_pickle=True (-P allow_pickle=true), or set {name}=true."
    )
