from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from mlflow_sb3.promotion import confidence

ALPHA = 0.05


def sample(count: int, seed: int = 0) -> NDArray[np.float64]:
    """Draw right-skewed values with mean 1."""
    return np.random.default_rng(seed).lognormal(-0.5, 1.0, count)


def all_t_statistics(values: list[float]) -> list[float]:
    """Return the t statistics of all resamples in order; NaN if all values are equal."""
    mean, count = np.mean(values), len(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        bounds = [
            (np.mean(drawn) - mean) / (np.std(drawn, ddof=1) / math.sqrt(count))
            for drawn in product(values, repeat=count)
        ]
    return [float(t) if math.isfinite(t) else math.nan for t in bounds]


def test_the_t_bounds_equal_a_calculation_by_hand() -> None:
    bounds = confidence.bound_mean(np.array([1.0, 2.0, 3.0]), ALPHA, seed=0)

    assert bounds.t_lower == pytest.approx(2 - 2.919986 / math.sqrt(3))
    assert bounds.t_upper == pytest.approx(2 + 2.919986 / math.sqrt(3))


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("count", [2, 25, 400])
def test_the_t_bounds_equal_those_of_scipy(count: int, alpha: float) -> None:
    values = sample(count)

    bounds = confidence.bound_mean(values, alpha, seed=0)

    interval = stats.ttest_1samp(values, 0.0).confidence_interval(1 - 2 * alpha)
    assert (bounds.t_lower, bounds.t_upper) == pytest.approx((interval.low, interval.high))


def test_the_bootstrap_bounds_approximate_those_of_all_resamples() -> None:
    values, alpha = [0.0, 1.0, 3.0, 7.0, 20.0], 0.1
    error = np.std(values, ddof=1) / math.sqrt(5)
    statistics = np.array(all_t_statistics(values))
    above = np.sort(np.nan_to_num(statistics, nan=np.inf))[math.ceil((1 - alpha) * 5**5) - 1]
    below = np.sort(np.nan_to_num(statistics, nan=-np.inf))[math.floor(alpha * 5**5)]

    bounds = [confidence.bound_mean(np.array(values), alpha, seed=seed) for seed in range(50)]

    assert np.median([bound.bootstrap_lower for bound in bounds]) == pytest.approx(
        np.mean(values) - above * error, rel=0.05
    )
    assert np.median([bound.bootstrap_upper for bound in bounds]) == pytest.approx(
        np.mean(values) - below * error, rel=0.05
    )


def test_the_wider_of_the_two_bounds_counts() -> None:
    one = confidence.ConfidenceBounds(
        t_lower=1.0, t_upper=4.0, bootstrap_lower=0.5, bootstrap_upper=3.0
    )
    other = confidence.ConfidenceBounds(
        t_lower=0.5, t_upper=3.0, bootstrap_lower=1.0, bootstrap_upper=4.0
    )

    assert (one.lower, one.upper) == (other.lower, other.upper) == (0.5, 4.0)


def test_both_bounds_together_cover_the_mean_of_skewed_values() -> None:
    samples = [np.random.default_rng([1, number]).exponential(1.0, 25) for number in range(600)]

    bounds = [
        confidence.bound_mean(values, ALPHA, seed=number) for number, values in enumerate(samples)
    ]

    assert np.mean([bound.t_upper < 1.0 for bound in bounds]) > 0.085
    assert np.mean([bound.upper < 1.0 for bound in bounds]) < 0.075
    assert np.mean([bound.lower > 1.0 for bound in bounds]) <= ALPHA


@pytest.mark.parametrize("value", [0.0, 500.0, 0.1, -7.3])
def test_equal_values_have_bounds_equal_to_the_value(value: float) -> None:
    bounds = confidence.bound_mean(np.full(400, value), ALPHA, seed=0)

    assert [bounds.lower, bounds.upper, bounds.t_lower, bounds.t_upper] == pytest.approx(
        [value] * 4, rel=1e-12
    )
    assert bounds.lower == bounds.upper
    assert confidence.compute_standard_error(np.full(400, value)) == 0.0


@pytest.mark.parametrize("outliers", [1, 2])
def test_one_or_two_outliers_make_the_bounds_infinite(outliers: int) -> None:
    values = np.zeros(400)
    values[:outliers] = 100.0

    bounds = confidence.bound_mean(values, ALPHA, seed=0)

    assert (bounds.lower, bounds.upper) == (-math.inf, math.inf)
    assert math.isfinite(bounds.t_lower)


def test_eight_outliers_give_finite_bounds() -> None:
    values = np.zeros(400)
    values[:8] = 100.0

    bounds = confidence.bound_mean(values, ALPHA, seed=0)

    assert 0.0 < bounds.lower < 2.0 < bounds.upper < 100.0


def test_two_values_have_infinite_bootstrap_bounds() -> None:
    bounds = confidence.bound_mean(np.array([1.0, 2.0]), ALPHA, seed=0)

    assert (bounds.bootstrap_lower, bounds.bootstrap_upper) == (-math.inf, math.inf)


def test_negated_values_have_mirrored_bounds() -> None:
    values = sample(50)

    bounds, mirrored = (
        confidence.bound_mean(values, ALPHA, seed=3),
        confidence.bound_mean(-values, ALPHA, seed=3),
    )

    assert (-mirrored.t_upper, -mirrored.t_lower) == pytest.approx((bounds.t_lower, bounds.t_upper))
    assert (-mirrored.bootstrap_upper, -mirrored.bootstrap_lower) == pytest.approx(
        (bounds.bootstrap_lower, bounds.bootstrap_upper)
    )


def test_a_smaller_alpha_gives_wider_bounds() -> None:
    wide, narrow = (confidence.bound_mean(sample(100), alpha, seed=0) for alpha in (0.01, 0.1))

    assert wide.t_lower < narrow.t_lower < narrow.t_upper < wide.t_upper
    assert (
        wide.bootstrap_lower
        < narrow.bootstrap_lower
        < narrow.bootstrap_upper
        < wide.bootstrap_upper
    )


def test_the_same_seed_gives_the_same_bounds() -> None:
    values = sample(100)

    first, again, other = (confidence.bound_mean(values, ALPHA, seed=seed) for seed in (1, 1, 2))

    assert first == again
    assert first != other


@pytest.mark.parametrize("block", [1, 700, 99_999])
def test_the_block_size_does_not_change_the_bounds(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = sample(101)
    whole = confidence.bound_mean(values, ALPHA, seed=1)

    monkeypatch.setattr(confidence, "_BLOCK_SIZE", block)

    assert confidence.bound_mean(values, ALPHA, seed=1) == whole


def test_the_detectable_difference_has_a_power_of_80_percent() -> None:
    values = np.tile([-1.0, 1.0], 200)

    bounds = confidence.compute_smallest_detectable_difference([values], ALPHA)

    # 400 values with standard deviation 1 and the normal quantiles: (1.645 + 0.842) / 20
    assert bounds == pytest.approx(0.1243, rel=0.01)


def test_the_detectable_difference_is_detected_in_four_of_five_samples() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.0, 1.0, 10_000)[:100]
    difference = confidence.compute_smallest_detectable_difference(
        [(values - values.mean()) / values.std(ddof=1)], ALPHA
    )
    assert difference is not None

    samples = rng.normal(difference, 1.0, (4000, 100))

    lower = stats.ttest_1samp(samples, 0.0, axis=1).confidence_interval(1 - 2 * ALPHA).low
    assert np.mean(lower > 0.0) == pytest.approx(confidence.POWER, abs=0.02)


def test_equal_values_have_no_detectable_difference() -> None:
    assert confidence.compute_smallest_detectable_difference([np.zeros(400)], ALPHA) is None


@pytest.mark.parametrize("sizes", [(2, 2), (5, 40), (400, 400)])
def test_the_bounds_of_a_difference_are_those_of_welch(sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(sizes)
    first, second = rng.normal(3.0, 1.0, sizes[0]), rng.normal(1.0, 7.0, sizes[1])

    bounds = confidence.bound_mean_difference(first, second, ALPHA, seed=0)

    expected = stats.ttest_ind(first, second, equal_var=False).confidence_interval(1 - 2 * ALPHA)
    assert (bounds.t_lower, bounds.t_upper) == pytest.approx((expected.low, expected.high))


def test_the_bootstrap_bounds_of_a_difference_follow_the_skew_of_both_samples() -> None:
    rng = np.random.default_rng(0)
    skewed, normal = rng.exponential(1.0, 200), rng.normal(0.0, 0.1, 200)

    first = confidence.bound_mean_difference(skewed, normal, ALPHA, seed=0)
    second = confidence.bound_mean_difference(normal, skewed, ALPHA, seed=0)

    # A long right tail moves both bounds of its mean up.
    assert first.bootstrap_lower > first.t_lower
    assert first.bootstrap_upper > first.t_upper
    assert (first.bootstrap_lower, first.bootstrap_upper) == pytest.approx(
        (-second.bootstrap_upper, -second.bootstrap_lower), rel=0.02
    )


def test_the_bounds_of_a_difference_of_constants_are_exact() -> None:
    bounds = confidence.bound_mean_difference(np.full(30, 5.0), np.full(30, 3.0), ALPHA, seed=0)

    assert (bounds.lower, bounds.upper) == (2.0, 2.0)


def test_a_sample_against_a_constant_has_the_bounds_of_the_sample() -> None:
    values = np.random.default_rng(0).normal(0.0, 1.0, 50)

    shifted = confidence.bound_mean_difference(values, np.full(50, 2.0), ALPHA, seed=0)

    alone = confidence.bound_mean(values, ALPHA, seed=0)
    assert shifted.t_lower == pytest.approx(alone.t_lower - 2)
    assert shifted.bootstrap_upper == pytest.approx(alone.bootstrap_upper - 2, abs=0.02)


def test_the_detectable_difference_of_two_samples_is_larger_than_that_of_pairs() -> None:
    values = np.tile([-1.0, 1.0], 200)

    unpaired = confidence.compute_smallest_detectable_difference([values, values], ALPHA)

    assert unpaired == pytest.approx(0.1243 * math.sqrt(2), rel=0.01)


@pytest.mark.parametrize(
    ("count", "fraction"), [(1, 0.95), (59, 0.0495), (100, 0.0295), (400, 0.00746)]
)
def test_the_undetected_fraction_is_the_exact_binomial_bound(count: int, fraction: float) -> None:
    assert confidence.bound_unseen_probability(count, ALPHA) == pytest.approx(fraction, rel=0.01)
    assert (1 - confidence.bound_unseen_probability(count, ALPHA)) ** count == pytest.approx(ALPHA)
