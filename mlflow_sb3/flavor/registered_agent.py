"""Load a registered agent with its training environment, ready to play episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from mlflow_sb3.envs import spec_rollout
from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.flavor import policy_loader
from mlflow_sb3.inference.policy_protocol import AgentPolicy
from mlflow_sb3.registry import integrity
from mlflow_sb3.registry.model_version import Version

if TYPE_CHECKING:
    from mlflow_sb3.registry.signing import KeyPath


@dataclass(frozen=True)
class RegisteredAgent:
    """The policy of a model version, and its training environment as ``EnvSpec`` JSON."""

    version: Version
    policy: AgentPolicy
    environment: str

    def play(
        self, seeds: Sequence[int], *, on_episode: Callable[[], object] = lambda: None
    ) -> Episodes:
        """Play one episode for each seed; see ``spec_rollout.play_episodes``."""
        return spec_rollout.play_episodes(
            self.policy, self.environment, seeds, on_episode=on_episode
        )


def load_version_policy(
    version: Version, *, public_key: KeyPath | None = None, allow_pickle: bool = False
) -> AgentPolicy:
    """Download a version, check its files and open its policy.

    Args:
        version: Model version with a digest.
        public_key: As in ``integrity.fetch_version``.
        allow_pickle: As in ``load_agent``.

    Raises:
        MlflowException: As in ``load_agent``, except that the agent may have no environment.
    """
    with integrity.fetch_version(version, public_key=public_key) as folder:
        return policy_loader.open_policy(folder, is_trusted=allow_pickle or public_key is not None)


def load_agent(
    version: Version, *, public_key: KeyPath | None = None, allow_pickle: bool = False
) -> RegisteredAgent:
    """Load a version with its training environment.

    Args:
        version: Model version with a digest.
        public_key: As in ``integrity.fetch_version``.
        allow_pickle: Whether to load an agent with ``inference="native"`` that no ``public_key``
            vouches for. This unpickles SB3's file.

    Raises:
        MlflowException: The files changed after registration, the signature does not fit the
            public key, the policy cannot be opened, or the agent has no environment.
    """
    policy = load_version_policy(version, public_key=public_key, allow_pickle=allow_pickle)
    if policy.environment is None:
        raise MlflowException.invalid_parameter_value(
            f"Model version {version} has no environment to play in. "
            "Log it again with mlflow_sb3.log_model(..., environment=<EnvSpec JSON>)."
        )
    return RegisteredAgent(version, policy, policy.environment)
