"""Compute one-sided confidence bounds of means, by Student's t and by the bootstrap-t."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    return _bound([values], alpha, seed)


def bound_mean_difference(
    first: NDArray[np.float64], second: NDArray[np.float64], alpha: float, *, seed: int
) -> ConfidenceBounds:
    """Compute bounds of the mean difference of two distributions, from independent samples.

    As ``bound_mean``, with Welch's t statistic.

    Args:
        first: Shape ``(n,)`` with ``n >= 2``, finite.
        second: Shape ``(m,)`` with ``m >= 2``, finite.
        alpha: Probability that one bound is wrong.
        seed: Seed of the bootstrap resamples.
    """
    return _bound([first, -second], alpha, seed)


def bound_mean_by_t(values: NDArray[np.float64], alpha: float) -> tuple[float, float]:
    """Return the lower and the upper bound of the mean by Student's t; see ``bound_mean``."""
    mean, error, degrees_of_freedom = _estimate_sum([values])
    t = float(stdtrit(degrees_of_freedom, 1 - alpha))
    return mean - t * error, mean + t * error


def compute_standard_error(values: NDArray[np.float64]) -> float:
    """Return the standard error of the mean of at least two values.

    The result is exactly 0 if all values are equal.
    """
    if np.all(values == values[0]):
        return 0.0
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def compute_smallest_detectable_difference(
    samples: Sequence[NDArray[np.float64]], alpha: float
) -> float | None:
    """Return the smallest difference that a one-sided t-test detects with a power of 80 %.

    The sizes and the standard deviations of the samples are those of the test.

    Args:
        samples: The differences of the pairs, or the returns of both agents. Each sample has the
            shape ``(n,)`` with ``n >= 2``.
        alpha: Level of the test.

    Returns:
        The difference, or None if no sample varies.
    """
    _, error, degrees_of_freedom = _estimate_sum(samples)
    if error == 0.0:
        return None
    quantiles = stdtrit(degrees_of_freedom, 1 - alpha) + stdtrit(degrees_of_freedom, POWER)
    return float(quantiles) * error


def bound_unseen_probability(count: int, alpha: float) -> float:
    """Return the upper bound for the probability of an event that no trial of ``count`` shows.

    This is the exact bound of the binomial distribution: ``1 - alpha ** (1 / count)``.
    """
    return 1 - math.exp(math.log(alpha) / count)


def _bound(samples: Sequence[NDArray[np.float64]], alpha: float, seed: int) -> ConfidenceBounds:
    """Compute bounds of the sum of the means of independent samples."""
    mean, error, degrees_of_freedom = _estimate_sum(samples)
    if error == 0.0:
        return ConfidenceBounds(mean, mean, mean, mean)
    t = float(stdtrit(degrees_of_freedom, 1 - alpha))
    low_quantile, high_quantile = _compute_bootstrap_t_quantiles(samples, alpha, seed)
    return ConfidenceBounds(
        t_lower=mean - t * error,
        t_upper=mean + t * error,
        bootstrap_lower=mean - high_quantile * error,
        bootstrap_upper=mean - low_quantile * error,
    )


def _estimate_sum(samples: Sequence[NDArray[np.float64]]) -> tuple[float, float, float]:
    """Estimate the sum of the means of independent samples.

    Returns:
        The sum, its standard error, and the degrees of freedom by Welch and Satterthwaite. For one
        sample of size ``n``, they are ``n - 1``.
    """
    mean = float(sum(sample.mean() for sample in samples))
    errors = np.array([compute_standard_error(sample) for sample in samples])
    freedoms = np.array([len(sample) - 1 for sample in samples])
    error = math.sqrt((errors**2).sum())
    if len(samples) == 1 or error == 0.0:
        return mean, error, float(freedoms.sum())
    return mean, error, float(1 / ((errors / error) ** 4 / freedoms).sum())


def _compute_bootstrap_t_quantiles(
    samples: Sequence[NDArray[np.float64]], alpha: float, seed: int
) -> tuple[float, float]:
    """Return the ``alpha`` and ``1 - alpha`` quantiles of the resampled t statistic.

    The statistic of a resample without variation is undefined. It counts as -infinity for the
    lower quantile and as infinity for the upper one, which makes both bounds wider.
    """
    wanted = min(TAIL_RESAMPLES / alpha, max(MAX_RESAMPLES, MIN_TAIL_RESAMPLES / alpha))
    resamples = math.ceil(wanted) - 1
    statistics = _compute_bootstrap_t_statistics(samples, resamples, seed)
    rank = math.ceil((1 - alpha) * (resamples + 1)) - 1
    high = np.sort(np.nan_to_num(statistics, nan=np.inf))[rank]
    low = np.sort(np.nan_to_num(statistics, nan=-np.inf))[resamples - 1 - rank]
    return float(low), float(high)


def _compute_bootstrap_t_statistics(
    samples: Sequence[NDArray[np.float64]], resamples: int, seed: int
) -> NDArray[np.float64]:
    """Return the t statistic of each resample, shape ``(resamples,)``; NaN if undefined."""
    rng = np.random.default_rng(seed)
    statistics = []
    for size in _split_into_blocks(resamples, max(1, _BLOCK_SIZE // max(map(len, samples)))):
        shifts, variances, is_varying = np.zeros(size), np.zeros(size), np.zeros(size, bool)
        for sample in samples:
            drawn = sample[rng.integers(0, len(sample), (size, len(sample)))]
            shifts += drawn.mean(axis=1) - sample.mean()
            variances += (drawn.std(axis=1, ddof=1) / math.sqrt(len(sample))) ** 2
            is_varying |= np.ptp(drawn, axis=1) > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            statistics.append(np.where(is_varying, shifts / np.sqrt(variances), np.nan))
    return np.concatenate(statistics)


def _split_into_blocks(total: int, largest: int) -> list[int]:
    return [min(largest, total - start) for start in range(0, total, largest)]
