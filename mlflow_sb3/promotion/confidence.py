"""Compute one-sided confidence bounds of a mean, by Student's t and by the bootstrap-t."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

TAIL_RESAMPLES = 100
"""Expected number of resamples beyond each bound. About ``TAIL_RESAMPLES / alpha`` are drawn."""
MAX_RESAMPLES = 100_000
"""Largest number of resamples, unless fewer than ``MIN_TAIL_RESAMPLES`` were beyond a bound."""
MIN_TAIL_RESAMPLES = 10
POWER = 0.8
"""Power of the test in ``compute_smallest_detectable_difference``."""

_BLOCK_SIZE = 2_000_000
"""Largest number of values resampled at once, to limit memory."""


@dataclass(frozen=True)
class ConfidenceBounds:
    """One-sided bounds of a mean: each of the four holds with probability ``1 - alpha``.

    A bootstrap bound is infinite if the sample has too little variation to estimate it, for
    example if all values but one are equal.
    """

    t_lower: float
    t_upper: float
    bootstrap_lower: float
    bootstrap_upper: float

    @property
    def lower(self) -> float:
        """Return the smaller of the two lower bounds."""
        return min(self.t_lower, self.bootstrap_lower)

    @property
    def upper(self) -> float:
        """Return the larger of the two upper bounds."""
        return max(self.t_upper, self.bootstrap_upper)


def bound_mean(values: NDArray[np.float64], alpha: float, *, seed: int) -> ConfidenceBounds:
    """Compute bounds of the mean of the distribution that ``values`` were drawn from.

    Both methods are used because each has a blind spot. The t bound is too narrow if the sample
    lacks a rare extreme value. The bootstrap-t bound is too narrow if both tails have rare values.
    Bootstrap-t: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 12.5.

    Args:
        values: Shape ``(n,)`` with ``n >= 2``, finite.
        alpha: Probability that one bound is wrong.
        seed: Seed of the bootstrap resamples.
    """
    mean, error = float(values.mean()), compute_standard_error(values)
    if error == 0.0:
        return ConfidenceBounds(mean, mean, mean, mean)
    t_lower, t_upper = bound_mean_by_t(values, alpha)
    low_quantile, high_quantile = _compute_bootstrap_t_quantiles(values, alpha, seed)
    return ConfidenceBounds(
        t_lower=t_lower,
        t_upper=t_upper,
        bootstrap_lower=mean - high_quantile * error,
        bootstrap_upper=mean - low_quantile * error,
    )


def bound_mean_by_t(values: NDArray[np.float64], alpha: float) -> tuple[float, float]:
    """Return the lower and the upper bound of the mean by Student's t; see ``bound_mean``."""
    mean, error = float(values.mean()), compute_standard_error(values)
    t = float(stdtrit(len(values) - 1, 1 - alpha))
    return mean - t * error, mean + t * error


def compute_standard_error(values: NDArray[np.float64]) -> float:
    """Return the standard error of the mean of at least two values.

    The result is exactly 0 if all values are equal.
    """
    if np.all(values == values[0]):
        return 0.0
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def compute_smallest_detectable_difference(
    values: NDArray[np.float64], alpha: float
) -> float | None:
    """Return the smallest mean that a one-sided t-test detects with a power of 80 %.

    The size and the standard deviation of ``values`` are those of the test.

    Args:
        values: Differences of the pairs, shape ``(n,)`` with ``n >= 2``.
        alpha: Level of the test.

    Returns:
        The difference, or None if all values are equal.
    """
    error, degrees_of_freedom = compute_standard_error(values), len(values) - 1
    quantiles = stdtrit(degrees_of_freedom, 1 - alpha) + stdtrit(degrees_of_freedom, POWER)
    return float(quantiles) * error or None


def bound_unseen_probability(count: int, alpha: float) -> float:
    """Return the upper bound for the probability of an event that no trial of ``count`` shows.

    This is the exact bound of the binomial distribution: ``1 - alpha ** (1 / count)``.
    """
    return 1 - math.exp(math.log(alpha) / count)


def _compute_bootstrap_t_quantiles(
    values: NDArray[np.float64], alpha: float, seed: int
) -> tuple[float, float]:
    """Return the ``alpha`` and ``1 - alpha`` quantiles of the resampled t statistic.

    The statistic of a resample without variation is undefined. It counts as -infinity for the
    lower quantile and as infinity for the upper one, which makes both bounds wider.
    """
    wanted = min(TAIL_RESAMPLES / alpha, max(MAX_RESAMPLES, MIN_TAIL_RESAMPLES / alpha))
    resamples = math.ceil(wanted) - 1
    statistics = _compute_bootstrap_t_statistics(values, resamples, seed)
    rank = math.ceil((1 - alpha) * (resamples + 1)) - 1
    high = np.sort(np.nan_to_num(statistics, nan=np.inf))[rank]
    low = np.sort(np.nan_to_num(statistics, nan=-np.inf))[resamples - 1 - rank]
    return float(low), float(high)


def _compute_bootstrap_t_statistics(
    values: NDArray[np.float64], resamples: int, seed: int
) -> NDArray[np.float64]:
    """Return the t statistic of each resample, shape ``(resamples,)``; NaN if undefined."""
    mean, count = values.mean(), len(values)
    rng = np.random.default_rng(seed)
    statistics = []
    for size in _split_into_blocks(resamples, max(1, _BLOCK_SIZE // count)):
        drawn = values[rng.integers(0, count, (size, count))]
        means = drawn.mean(axis=1)
        errors = drawn.std(axis=1, ddof=1) / math.sqrt(count)
        with np.errstate(divide="ignore", invalid="ignore"):
            statistics.append(np.where(np.ptp(drawn, axis=1) > 0, (means - mean) / errors, np.nan))
    return np.concatenate(statistics)


def _split_into_blocks(total: int, largest: int) -> list[int]:
    return [min(largest, total - start) for start in range(0, total, largest)]
