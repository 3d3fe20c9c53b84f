"""Define ``FactoryVecEnv``, the environments of a function in which an algorithm learns."""

from __future__ import annotations

from typing import Any

from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices


class FactoryVecEnv(VecMonitor):
    """The environments that a function made, with the returns and lengths of their episodes.

    Attributes:
        spec: ``EnvSpec`` of the environments.
    """

    def __init__(self, venv: VecEnv, description: str) -> None:
        """Wrap the result of the function.

        Args:
            venv: The result; see ``vec_env_factory``.
            description: ``EnvSpec`` JSON of the environments.
        """
        super().__init__(venv)
        self.spec = EnvSpec.from_json(description)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of each environment. All have the same ``spec``."""
        if attr_name == "spec":
            return [self.spec] * len(list(self._get_indices(indices)))
        return super().get_attr(attr_name, indices)
