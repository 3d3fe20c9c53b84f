"""Save and restore the values that ``learn`` of an SB3 algorithm resets when it starts."""

from __future__ import annotations

import inspect
import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from mlflow_sb3.flavor import sb3_internals
from mlflow_sb3.training.snapshot_pickle import pickle_attributes

ITERATIONS_KEY = "time/iterations"
"""Metric of the on-policy algorithms: calls of ``collect_rollouts``."""
_LOGGER_DICTS = ("name_to_value", "name_to_count", "name_to_excluded")
"""Attributes of an SB3 logger that hold the values recorded since the last dump."""


class IterationLogger(Logger):
    """SB3 logger that continues the iteration count of a resumed training.

    On-policy algorithms count iterations in a local variable of ``learn``, which starts at 0.
    """

    def __init__(self, writers: Sequence[KVWriter]) -> None:
        """Create a logger that writes to ``writers``."""
        super().__init__(folder=None, output_formats=list(writers))
        self.iterations = 0
        self._iterations_before = 0

    def continue_from(self, iterations: int) -> None:
        """Add the iterations before the interruption to all later counts."""
        self._iterations_before = self.iterations = iterations

    def record(self, key: str, value: Any, exclude: str | tuple[str, ...] | None = None) -> None:
        """Record a value as SB3's logger does, with the total number of iterations."""
        if key == ITERATIONS_KEY:
            value = self.iterations = self._iterations_before + value
        super().record(key, value, exclude)


@dataclass(frozen=True)
class LearnState:
    """Values that ``learn`` resets when it starts."""

    action_noise: bytes | None
    """Pickled attributes of the action noise."""
    gsde_distribution: bytes | None
    """Pickled attributes of the distribution with the exploration matrices of gSDE."""
    logger_values: dict[str, dict[str, Any]]
    iterations: int
    elapsed_ns: float
    """Nanoseconds in ``learn``, without the pause between an interruption and the resume."""
    timesteps_at_start: int

    @classmethod
    def from_model(cls, model: BaseAlgorithm) -> Self:
        """Copy the values of an algorithm whose logger is an ``IterationLogger``."""
        logger: Any = model.logger
        return cls(
            action_noise=pickle_attributes(model.action_noise),
            gsde_distribution=pickle_attributes(_get_gsde_distribution(model)),
            logger_values={name: dict(getattr(logger, name)) for name in _LOGGER_DICTS},
            iterations=logger.iterations,
            elapsed_ns=time.time_ns() - model.start_time,
            timesteps_at_start=sb3_internals.get_timesteps_at_start(model),
        )

    def restore(self, model: BaseAlgorithm) -> None:
        """Set the values of an algorithm. Call this at the start of the first rollout.

        At that time SB3 has already sampled the exploration matrices of gSDE, so it does not
        overwrite the restored ones.
        """
        for target, attributes in (
            (model.action_noise, self.action_noise),
            (_get_gsde_distribution(model), self.gsde_distribution),
        ):
            if attributes is not None:
                vars(target).update(pickle.loads(attributes))  # noqa: S301 the snapshot is trusted
        logger: Any = model.logger
        for name, values in self.logger_values.items():
            getattr(logger, name).update(values)
        logger.continue_from(self.iterations)
        model.start_time = time.time_ns() - self.elapsed_ns
        sb3_internals.set_timesteps_at_start(model, self.timesteps_at_start)


def get_rollouts_per_dump(model: BaseAlgorithm) -> int:
    """Return the number of rollouts from one possible snapshot to the next.

    On-policy algorithms log their metrics after every ``log_interval`` rollouts. They count the
    rollouts in a local variable of ``learn``, and a resumed ``learn`` starts to count at 0. A
    snapshot is therefore only taken after the metrics were logged. Other algorithms have no such
    variable.
    """
    if not isinstance(model, OnPolicyAlgorithm):
        return 1
    return int(inspect.signature(type(model).learn).parameters["log_interval"].default)


def _get_gsde_distribution(model: BaseAlgorithm) -> StateDependentNoiseDistribution | None:
    """Return the distribution of a gSDE policy. None for other policies."""
    actor = getattr(model, "actor", None) or model.policy
    distribution = getattr(actor, "action_dist", None)
    return distribution if isinstance(distribution, StateDependentNoiseDistribution) else None
