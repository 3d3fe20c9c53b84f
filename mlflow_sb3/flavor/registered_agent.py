"""A registered agent with the environment that it was trained in, ready to play."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from mlflow_sb3.envs import env_spec, rollout
from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.envs.wrapper_config import Env
from mlflow_sb3.flavor import policy_loader
from mlflow_sb3.inference.onnx_policy import OnnxPolicy
from mlflow_sb3.registry import integrity
from mlflow_sb3.registry.model_version import Version

if TYPE_CHECKING:
    from mlflow_sb3.flavor.sb3_policy import SB3AgentPolicy
    from mlflow_sb3.registry.signing import KeyPath


@dataclass(frozen=True)
class RegisteredAgent:
    """A version's policy, and its environment as ``EnvSpec`` JSON."""

    version: Version
    policy: OnnxPolicy | SB3AgentPolicy
    environment: str

    def make_env(self) -> Env:
        """One of its environments."""
        return env_spec.make_from_spec(self.environment)

    def play(
        self, seeds: Sequence[int], *, on_episode: Callable[[], object] = lambda: None
    ) -> Episodes:
        """Play an episode for each seed."""
        return rollout.play_episodes(self.policy, self.make_env, seeds, on_episode=on_episode)


def load_agent(version: Version, *, public_key: KeyPath | None = None) -> RegisteredAgent:
    """Download a version, check its files and open its policy.

    Args:
        version: With a digest.
        public_key: As in ``integrity.fetch_version``.

    Raises:
        MlflowException: The files are not those that were registered, or not signed with that key, or name no environment.
    """
    with integrity.fetch_version(version, public_key=public_key) as folder:
        policy = policy_loader.open_policy(folder)
    if policy.environment is None:
        raise MlflowException.invalid_parameter_value(
            f"model version {version} names no environment to play in; log it with mlflow_sb3.log_model(..., environment=EnvSpec JSON)."
        )
    return RegisteredAgent(version, policy, policy.environment)
