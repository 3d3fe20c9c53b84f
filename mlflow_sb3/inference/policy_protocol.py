"""Define the protocols of policies: for rollouts, and for policies loaded from a model."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

from mlflow_sb3.inference.agent_files import AgentInfo
from mlflow_sb3.inference.policy_inputs import LstmState, PolicyInputs, SpaceInfo


class Policy(Protocol):
    """A policy that can play episodes, with the signature of SB3's ``predict``."""

    @property
    def has_action_masks(self) -> bool:
        """Whether ``predict`` needs ``action_masks``."""
        raise NotImplementedError

    def predict(
        self,
        observation: Any,
        state: LstmState | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = True,
        *,
        action_masks: Any = None,
    ) -> tuple[NDArray[Any], LstmState | None]:
        """Return actions of shape ``(n, *action_shape)``, and the next LSTM state."""
        raise NotImplementedError


class AgentPolicy(Policy, Protocol):
    """The policy of an exported agent: ``OnnxPolicy`` or ``SB3AgentPolicy``."""

    observation_space: SpaceInfo
    action_space: SpaceInfo
    inputs: PolicyInputs
    agent_info: AgentInfo | None
    """Content of ``agent.json``. None if the agent was not saved yet."""

    @property
    def environment(self) -> str | None:
        """``EnvSpec`` JSON of the training environment. None if it is unknown."""
        raise NotImplementedError

    def predict(
        self,
        observation: Any,
        state: LstmState | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = True,
        *,
        action_masks: Any = None,
        seed: int | None = None,
    ) -> tuple[NDArray[Any], LstmState | None]:
        """Return actions and the next state. ``seed`` makes sampled actions reproducible."""
        raise NotImplementedError
