"""How sure a mean is: one-sided bounds by the t distribution and by the bootstrap."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

BEYOND = 100
"""Resamples beyond a bound: the bootstrap draws so many over alpha."""
POWER = 0.8
"""Chance with which the smallest detectable difference would have been found, as is usual."""

_BLOCK = 2_000_000
"""Numbers that are resampled at once."""


@dataclass(frozen=True)
class ConfidenceBounds:
    """Where a mean lies: above each lower bound, and below each upper one, with the probability 1 - alpha.

    Infinite where the sample says nothing, as when it is one value many times and another one once.
    """

    t_lower: float
    t_upper: float
    bootstrap_lower: float
    bootstrap_upper: float

    @property
    def lower(self) -> float:
        """The more careful of the two lower bounds."""
        return min(self.t_lower, self.bootstrap_lower)

    @property
    def upper(self) -> float:
        """The more careful of the two upper bounds."""
        return max(self.t_upper, self.bootstrap_upper)


def of_mean(values: NDArray[np.float64], alpha: float, *, seed: int) -> ConfidenceBounds:
    """Bounds of the mean that at least two values were drawn around.

    The t bound is wrong when a rare value is missing in the sample, the bootstrap-t bound when rare values are on both
    sides; hence both. Bootstrap-t: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 12.5.

    Args:
        values: Shape ``(n,)``, finite.
        alpha: Chance that one bound is wrong.
        seed: Of the resamples.
    """
    mean, error = float(values.mean()), standard_error(values)
    if error == 0.0:
        return ConfidenceBounds(mean, mean, mean, mean)
    t = float(stdtrit(len(values) - 1, 1 - alpha))
    below, above = _bootstrap_t(values, alpha, seed)
    return ConfidenceBounds(
        mean - t * error, mean + t * error, mean - above * error, mean - below * error
    )


def standard_error(values: NDArray[np.float64]) -> float:
    """Of the mean of at least two values; exactly 0 when all of them are the same."""
    return (
        0.0 if np.all(values == values[0]) else float(values.std(ddof=1)) / math.sqrt(len(values))
    )


def smallest_detectable_difference(values: NDArray[np.float64], alpha: float) -> float | None:
    """The smallest difference of means that as many values with this spread show with a chance of 80 %.

    None when they do not spread: then nothing is known of it.
    """
    error, freedom = standard_error(values), len(values) - 1
    return float(stdtrit(freedom, 1 - alpha) + stdtrit(freedom, POWER)) * error or None


def max_undetected_fraction(count: int, alpha: float) -> float:
    """The largest share of another kind that so many of one kind leave possible: ``1 - alpha ** (1 / count)``."""
    return 1 - math.exp(math.log(alpha) / count)


def _bootstrap_t(values: NDArray[np.float64], alpha: float, seed: int) -> tuple[float, float]:
    """The alpha and 1 - alpha quantiles of the resampled t statistic; resamples without spread count against either bound."""
    mean, count = values.mean(), len(values)
    resamples = math.ceil(BEYOND / alpha) - 1
    rng = np.random.default_rng(seed)
    statistics = []
    for size in _sizes(resamples, max(1, _BLOCK // count)):
        drawn = values[rng.integers(0, count, (size, count))]
        means = drawn.mean(axis=1)
        errors = drawn.std(axis=1, ddof=1) / math.sqrt(count)
        with np.errstate(divide="ignore", invalid="ignore"):
            statistics.append(np.where(np.ptp(drawn, axis=1) > 0, (means - mean) / errors, np.nan))
    found = np.concatenate(statistics)
    rank = math.ceil((1 - alpha) * (resamples + 1)) - 1
    above = np.sort(np.nan_to_num(found, nan=np.inf))[rank]
    below = np.sort(np.nan_to_num(found, nan=-np.inf))[resamples - 1 - rank]
    return float(below), float(above)


def _sizes(total: int, largest: int) -> list[int]:
    return [min(largest, total - start) for start in range(0, total, largest)]
