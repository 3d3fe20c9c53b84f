"""A registered agent with the environment that it was trained in, ready to play."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from mlflow_sb3 import environment, evaluation, flavor, registry
from mlflow_sb3.environment import Env
from mlflow_sb3.evaluation import Episodes
from mlflow_sb3.policy import OnnxPolicy
from mlflow_sb3.registry import Version

if TYPE_CHECKING:
    from mlflow_sb3.native import NativeAgent
    from mlflow_sb3.signing import KeyPath


@dataclass(frozen=True)
class Contender:
    """A version's policy, and its environment as ``EnvSpec`` JSON."""

    version: Version
    policy: OnnxPolicy | NativeAgent
    environment: str

    def make_env(self) -> Env:
        """One of its environments."""
        return environment.remake(self.environment)

    def play(self, seeds: Sequence[int], *, on_episode: Callable[[], object] = lambda: None) -> Episodes:
        """Play an episode for each seed."""
        return evaluation.play(self.policy, self.make_env, seeds, on_episode=on_episode)


def load(version: Version, *, public_key: KeyPath | None = None) -> Contender:
    """Download a version, check its files and open its policy.

    Args:
        version: With a digest.
        public_key: As in ``registry.fetch``.

    Raises:
        MlflowException: The files are not those that were registered, or not signed with that key, or name no environment.
    """
    with registry.fetch(version, public_key=public_key) as folder:
        policy = flavor.open_policy(folder)
    if policy.environment is None:
        raise MlflowException.invalid_parameter_value(
            f"model version {version} names no environment to play in; log it with mlflow_sb3.log_model(..., environment=EnvSpec JSON)."
        )
    return Contender(version, policy, policy.environment)
