"""An agent of one moment of training, which may be the one to keep."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from typing import Any, Self

from gymnasium.spaces import Space
from stable_baselines3.common.base_class import BaseAlgorithm

from mlflow_sb3.flavor import sb3_policy
from mlflow_sb3.flavor.sb3_policy import SB3Policy
from mlflow_sb3.flavor.vec_normalize import Statistics, read_statistics, set_statistics, standalone


@dataclass
class Checkpoint:
    """SB3's own file of an agent, and the returns of the episodes it played."""

    step: int
    agent: bytes = field(repr=False)
    training_score: float
    """Mean return of the episodes that it played while training went on."""
    statistics: Statistics | None = field(default=None, repr=False)
    """What its VecNormalize had learned by then."""
    returns: list[float] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, model: BaseAlgorithm) -> Self:
        """The agent of this moment, between two rollouts, when an update is complete. It has not played yet."""
        return cls(
            model.num_timesteps, sb3_policy.save_archive(model), math.nan, read_statistics(model)
        )

    @property
    def score(self) -> float:
        """Mean return over fresh episodes, none of which chose it during training."""
        return sum(self.returns) / len(self.returns)

    @property
    def rank(self) -> tuple[float, float, int]:
        """Best last: by fresh episodes, then by those during training, then the longer trained one."""
        return (self.score if self.returns else 0.0, self.training_score, self.step)

    def put_into(self, model: BaseAlgorithm) -> None:
        """Put its weights into a model, and what it had learned to normalize with into the model's environments."""
        model.set_parameters(io.BytesIO(self.agent), device=model.device)  # type: ignore[arg-type]  # takes files too
        vec_normalize = model.get_vec_normalize_env()
        if vec_normalize is not None and self.statistics is not None:
            set_statistics(vec_normalize, self.statistics)

    def policy(
        self, model: BaseAlgorithm, observation_space: Space[Any], action_space: Space[Any]
    ) -> SB3Policy:
        """As it acts, in a model of its own, of the same kind and on the same device; PyTorch's generator is drawn from."""
        own = type(model).load(
            io.BytesIO(self.agent), device=model.device, custom_objects=sb3_policy.NO_BUFFER
        )
        spaces = observation_space, action_space
        return SB3Policy(
            own.policy,
            *spaces,
            None if self.statistics is None else standalone(self.statistics, *spaces),
        )
