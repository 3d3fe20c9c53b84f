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
    """Right-skewed values with the mean 1."""
    return np.random.default_rng(seed).lognormal(-0.5, 1.0, count)


def every_t(values: list[float]) -> list[float]:
    """The t statistics of all resamples of the values, in order; NaN where a resample is one value again and again."""
    mean, count = np.mean(values), len(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = [
            (np.mean(drawn) - mean) / (np.std(drawn, ddof=1) / math.sqrt(count))
            for drawn in product(values, repeat=count)
        ]
    return [float(t) if math.isfinite(t) else math.nan for t in found]


def test_the_t_bounds_are_what_a_hand_works_out() -> None:
    found = confidence.of_mean(np.array([1.0, 2.0, 3.0]), ALPHA, seed=0)

    assert found.t_lower == pytest.approx(2 - 2.919986 / math.sqrt(3))
    assert found.t_upper == pytest.approx(2 + 2.919986 / math.sqrt(3))


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("count", [2, 25, 400])
def test_the_t_bounds_are_those_of_scipy(count: int, alpha: float) -> None:
    values = sample(count)

    found = confidence.of_mean(values, alpha, seed=0)

    interval = stats.ttest_1samp(values, 0.0).confidence_interval(1 - 2 * alpha)
    assert (found.t_lower, found.t_upper) == pytest.approx((interval.low, interval.high))


def test_the_bootstrap_bounds_are_those_of_all_resamples() -> None:
    values, alpha = [0.0, 1.0, 3.0, 7.0, 20.0], 0.1
    error = np.std(values, ddof=1) / math.sqrt(5)
    statistics = np.array(every_t(values))
    above = np.sort(np.nan_to_num(statistics, nan=np.inf))[math.ceil((1 - alpha) * 5**5) - 1]
    below = np.sort(np.nan_to_num(statistics, nan=-np.inf))[math.floor(alpha * 5**5)]

    found = [confidence.of_mean(np.array(values), alpha, seed=seed) for seed in range(50)]

    assert np.median([each.bootstrap_lower for each in found]) == pytest.approx(
        np.mean(values) - above * error, rel=0.05
    )
    assert np.median([each.bootstrap_upper for each in found]) == pytest.approx(
        np.mean(values) - below * error, rel=0.05
    )


def test_the_more_careful_of_two_bounds_counts() -> None:
    one = confidence.ConfidenceBounds(
        t_lower=1.0, t_upper=4.0, bootstrap_lower=0.5, bootstrap_upper=3.0
    )
    other = confidence.ConfidenceBounds(
        t_lower=0.5, t_upper=3.0, bootstrap_lower=1.0, bootstrap_upper=4.0
    )

    assert (one.lower, one.upper) == (other.lower, other.upper) == (0.5, 4.0)


def test_of_skewed_values_the_t_bound_misses_the_mean_too_often_and_both_together_do_not() -> None:
    samples = [np.random.default_rng([1, number]).exponential(1.0, 25) for number in range(600)]

    found = [
        confidence.of_mean(values, ALPHA, seed=number) for number, values in enumerate(samples)
    ]

    assert np.mean([each.t_upper < 1.0 for each in found]) > 0.085
    assert np.mean([each.upper < 1.0 for each in found]) < 0.075
    assert np.mean([each.lower > 1.0 for each in found]) <= ALPHA


@pytest.mark.parametrize("value", [0.0, 500.0, 0.1, -7.3])
def test_one_value_again_and_again_is_its_own_bound(value: float) -> None:
    found = confidence.of_mean(np.full(400, value), ALPHA, seed=0)

    assert [found.lower, found.upper, found.t_lower, found.t_upper] == pytest.approx(
        [value] * 4, rel=1e-12
    )
    assert found.lower == found.upper
    assert confidence.standard_error(np.full(400, value)) == 0.0


@pytest.mark.parametrize("few", [1, 2])
def test_a_few_values_of_another_kind_say_nothing(few: int) -> None:
    values = np.zeros(400)
    values[:few] = 100.0

    found = confidence.of_mean(values, ALPHA, seed=0)

    assert (found.lower, found.upper) == (-math.inf, math.inf)
    assert math.isfinite(found.t_lower)


def test_enough_values_of_another_kind_say_something() -> None:
    values = np.zeros(400)
    values[:8] = 100.0

    found = confidence.of_mean(values, ALPHA, seed=0)

    assert 0.0 < found.lower < 2.0 < found.upper < 100.0


def test_two_values_say_nothing_by_the_bootstrap() -> None:
    found = confidence.of_mean(np.array([1.0, 2.0]), ALPHA, seed=0)

    assert (found.bootstrap_lower, found.bootstrap_upper) == (-math.inf, math.inf)


def test_the_bounds_of_the_negated_values_are_mirrored() -> None:
    values = sample(50)

    found, mirrored = (
        confidence.of_mean(values, ALPHA, seed=3),
        confidence.of_mean(-values, ALPHA, seed=3),
    )

    assert (-mirrored.t_upper, -mirrored.t_lower) == pytest.approx((found.t_lower, found.t_upper))
    assert (-mirrored.bootstrap_upper, -mirrored.bootstrap_lower) == pytest.approx(
        (found.bootstrap_lower, found.bootstrap_upper)
    )


def test_a_smaller_alpha_gives_wider_bounds() -> None:
    wide, narrow = (confidence.of_mean(sample(100), alpha, seed=0) for alpha in (0.01, 0.1))

    assert wide.t_lower < narrow.t_lower < narrow.t_upper < wide.t_upper
    assert (
        wide.bootstrap_lower
        < narrow.bootstrap_lower
        < narrow.bootstrap_upper
        < wide.bootstrap_upper
    )


def test_the_same_seed_gives_the_same_bounds() -> None:
    values = sample(100)

    assert confidence.of_mean(values, ALPHA, seed=1) == confidence.of_mean(values, ALPHA, seed=1)
    assert confidence.of_mean(values, ALPHA, seed=1) != confidence.of_mean(values, ALPHA, seed=2)


@pytest.mark.parametrize("block", [1, 700, 99_999])
def test_the_blocks_of_resamples_do_not_change_the_bounds(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = sample(101)
    whole = confidence.of_mean(values, ALPHA, seed=1)

    monkeypatch.setattr(confidence, "_BLOCK", block)

    assert confidence.of_mean(values, ALPHA, seed=1) == whole


def test_the_detectable_difference_is_that_of_the_usual_power() -> None:
    values = np.tile([-1.0, 1.0], 200)

    found = confidence.smallest_detectable_difference(values, ALPHA)

    # 400 values with the standard deviation 1, quantiles of the normal distribution: (1.645 + 0.842) / 20
    assert found == pytest.approx(0.1243, rel=0.01)


def test_a_difference_of_the_detectable_size_is_detected_in_four_of_five_samples() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.0, 1.0, 10_000)[:100]
    difference = confidence.smallest_detectable_difference(
        (values - values.mean()) / values.std(ddof=1), ALPHA
    )
    assert difference is not None

    samples = rng.normal(difference, 1.0, (4000, 100))

    lower = stats.ttest_1samp(samples, 0.0, axis=1).confidence_interval(1 - 2 * ALPHA).low
    assert np.mean(lower > 0.0) == pytest.approx(confidence.POWER, abs=0.02)


def test_nothing_is_known_of_the_detectable_difference_of_values_that_do_not_spread() -> None:
    assert confidence.smallest_detectable_difference(np.zeros(400), ALPHA) is None


@pytest.mark.parametrize(
    ("count", "share"), [(1, 0.95), (59, 0.0495), (100, 0.0295), (400, 0.00746)]
)
def test_so_many_of_one_kind_leave_a_share_of_another_possible(count: int, share: float) -> None:
    assert confidence.max_undetected_fraction(count, ALPHA) == pytest.approx(share, rel=0.01)
    assert (1 - confidence.max_undetected_fraction(count, ALPHA)) ** count == pytest.approx(ALPHA)
