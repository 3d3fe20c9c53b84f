"""Policy weights at a training step, and the returns of their evaluation episodes."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from typing import Any, Self

from gymnasium.spaces import Space
from stable_baselines3.common.base_class import BaseAlgorithm

from mlflow_sb3.flavor import sb3_policy
from mlflow_sb3.flavor.sb3_policy import SB3Policy
from mlflow_sb3.flavor.vec_normalize import (
    Statistics,
    make_standalone,
    read_statistics,
    set_statistics,
)


@dataclass
class Checkpoint:
    """Weights of an algorithm at a training step, with the returns of its evaluation episodes."""

    step: int
    archive: bytes = field(repr=False)
    """Content of the zip file that SB3's ``save`` writes."""
    training_score: float
    """Mean return of the evaluation episodes during training. NaN until they have ended."""
    statistics: Statistics | None = field(default=None, repr=False)
    """Settings and statistics of VecNormalize at this step. None without VecNormalize."""
    returns: list[float] = field(default_factory=list, repr=False)
    """Returns of the fresh evaluation episodes after training."""

    @classmethod
    def from_model(cls, model: BaseAlgorithm) -> Self:
        """Copy the current weights of an algorithm.

        Call it between two rollouts, when no gradient update is in progress.
        """
        return cls(
            model.num_timesteps, sb3_policy.save_to_bytes(model), math.nan, read_statistics(model)
        )

    @property
    def score(self) -> float:
        """Mean return over the fresh evaluation episodes after training."""
        return sum(self.returns) / len(self.returns)

    @property
    def rank(self) -> tuple[float, float, int]:
        """Sort key: score, then training score, then step. The best checkpoint has the maximum."""
        return (self.score if self.returns else 0.0, self.training_score, self.step)

    def load_into(self, model: BaseAlgorithm) -> None:
        """Load the weights into a model, and the statistics into its VecNormalize."""
        archive: Any = io.BytesIO(self.archive)  # SB3 declares a path, but accepts a file
        model.set_parameters(archive, device=model.device)
        vec_normalize = model.get_vec_normalize_env()
        if vec_normalize is not None and self.statistics is not None:
            set_statistics(vec_normalize, self.statistics)

    def build_policy(
        self, model: BaseAlgorithm, observation_space: Space[Any], action_space: Space[Any]
    ) -> SB3Policy:
        """Return a policy with the weights of this checkpoint that shares nothing with ``model``.

        Building it draws from PyTorch's global random generator.

        Args:
            model: Algorithm of the same class. The policy is loaded on the same device.
            observation_space: Observation space of the environment, without wrappers of SB3.
            action_space: Action space of the environment.
        """
        copy = type(model).load(
            io.BytesIO(self.archive),
            device=model.device,
            custom_objects=sb3_policy.WITHOUT_REPLAY_BUFFER,
        )
        spaces = observation_space, action_space
        return SB3Policy(
            copy.policy,
            *spaces,
            None if self.statistics is None else make_standalone(self.statistics, *spaces),
        )
