from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from benchmarks import promotion
from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.promotion import confidence
from mlflow_sb3.promotion.gate import Comparison, Gate, LOOKS, Play, Verdict, compare_agents, differences, worst_returns_mean


def episodes(returns: ArrayLike, start: int = 0) -> Episodes:
    values = np.array(returns, dtype=float)
    return Episodes(np.arange(start, start + len(values)), values, np.full(len(values), 7))


def normal(mean: float, std: float, pairs: int = 400, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(mean, std, pairs)


def lead(*parts: tuple[int, ArrayLike]) -> NDArray[np.float64]:
    """Differences, part by part: so many pairs, and one difference or one for each of them."""
    return np.concatenate(
        [np.broadcast_to(np.asarray(difference, dtype=float), pairs) for pairs, difference in parts]
    )


def playing(challenger: NDArray[np.float64], champion: NDArray[np.float64]) -> Play:
    return lambda start, stop: (
        episodes(challenger[start:stop], start),
        episodes(champion[start:stop], start),
    )


def compare(differences: NDArray[np.float64], gate: Gate = Gate()) -> Comparison:  # noqa: B008 frozen
    """The verdict on a challenger that is so much ahead of a champion whose returns differ from seed to seed by whole numbers."""
    champion = np.round(normal(200, 60, len(differences), seed=9))
    return compare_agents(gate, playing(champion + differences, champion), seed=1)


def test_a_tie_keeps_the_champion_after_all_pairs() -> None:
    compared = compare(np.zeros(400))

    assert compared.verdict == "tie"
    assert [look.pairs for look in compared.looks] == [25, 50, 100, 200, 400]
    assert [look.mean_difference for look in compared.looks] == [0.0] * 5


def test_a_tie_is_no_rejection_where_an_improvement_was_asked_for() -> None:
    assert compare(np.zeros(400), Gate(min_improvement=5.0)).verdict == "tie"


def test_a_surely_better_challenger_is_promoted() -> None:
    compared = compare(normal(10, 60))

    assert compared.verdict == "promote"
    assert (
        0
        < compared.looks[-1].bounds.lower
        < compared.looks[-1].mean_difference
        == compared.differences.mean()
    )
    assert compared.challenger_bounds is None


@pytest.mark.parametrize(
    ("differences", "pairs"),
    [
        (normal(-50, 60), 25),
        (lead((25, normal(0, 60, 25)), (375, -50)), 50),
        (lead((50, normal(0, 60, 50)), (350, -50)), 100),
        (lead((100, normal(0, 60, 100, seed=3)), (300, -50)), 200),
        (lead((200, normal(0, 60, 200, seed=3)), (200, -50)), 400),
    ],
)
def test_a_surely_worse_challenger_is_rejected_at_the_next_look(
    differences: NDArray[np.float64], pairs: int
) -> None:
    compared = compare(differences)

    assert compared.verdict == "reject"
    assert len(compared.differences) == compared.looks[-1].pairs == pairs
    assert all(look.bounds.upper > 0 for look in compared.looks[:-1])
    assert compared.looks[-1].bounds.upper <= 0


def test_what_is_not_sure_is_inconclusive() -> None:
    compared = compare(normal(0, 60, seed=3))

    assert compared.verdict == "inconclusive"
    assert compared.looks[-1].bounds.lower < 0 < compared.looks[-1].bounds.upper


@pytest.mark.parametrize("pairs", [25, 50, 100, 200])
def test_a_lead_that_does_not_last_promotes_nobody(pairs: int) -> None:
    compared = compare(lead((pairs, normal(60, 6, pairs)), (400 - pairs, -60)))

    assert compared.looks[LOOKS.index(pairs)].bounds.lower > 50
    assert compared.verdict in ("reject", "inconclusive")


@pytest.mark.parametrize("pairs", [25, 50, 100, 200])
def test_nothing_but_ties_so_far_is_no_rejection(pairs: int) -> None:
    compared = compare(lead((pairs, 0), (400 - pairs, normal(20, 5, 400 - pairs))))

    assert compared.verdict == "promote"
    assert compared.looks[0].bounds.upper == 0.0


def test_a_challenger_that_usually_wins_and_rarely_fails_is_not_promoted() -> None:
    differences = lead((200, normal(5, 1, 200)), (1, -500), (199, normal(5, 1, 199)))

    compared = compare(differences)

    assert compared.verdict == "inconclusive"
    assert compared.looks[-1].bounds.t_lower > 0
    assert compared.probability_of_improvement > 0.99


def test_the_pairs_are_played_once_each_and_only_as_far_as_needed() -> None:
    asked: list[tuple[int, int]] = []
    champion = normal(200, 60)

    def play(start: int, stop: int) -> tuple[Episodes, Episodes]:
        asked.append((start, stop))
        return playing(champion, champion)(start, stop)

    compare_agents(Gate(episodes=120), play, seed=0)
    assert asked == [(0, 25), (25, 50), (50, 100), (100, 120)]
    asked.clear()

    champion = normal(200, 60)
    compare_agents(
        Gate(),
        lambda start, stop: (play(start, stop)[0], episodes(champion[start:stop] + 1, start)),
        seed=0,
    )
    assert asked == [(0, 25)]


@pytest.mark.parametrize(
    ("count", "looks"),
    [
        (2, [2]),
        (25, [25]),
        (26, [25, 26]),
        (100, [25, 50, 100]),
        (400, [25, 50, 100, 200, 400]),
        (1000, [25, 50, 100, 200, 1000]),
    ],
)
def test_the_last_look_is_at_all_pairs(count: int, looks: list[int]) -> None:
    assert Gate(episodes=count).looks == looks


@pytest.mark.parametrize(
    ("min_improvement", "verdict", "pairs"),
    [(0.0, "promote", 400), (4.0, "promote", 400), (5.0, "inconclusive", 400), (8.0, "reject", 25)],
)
def test_the_challenger_has_to_be_ahead_by_the_least_improvement(
    min_improvement: float, verdict: Verdict, pairs: int
) -> None:
    compared = compare(np.tile([3.0, 7.0], 200), Gate(min_improvement=min_improvement))

    assert (compared.verdict, len(compared.differences)) == (verdict, pairs)


def test_exactly_the_least_improvement_is_too_little() -> None:
    assert compare(np.full(400, 5.0), Gate(min_improvement=5.0)).verdict == "reject"
    assert compare(np.full(400, 5.0), Gate(min_improvement=4.0)).verdict == "promote"


@pytest.mark.parametrize(
    ("min_return", "verdict"), [(180.0, "promote"), (210.0, "inconclusive"), (240.0, "reject")]
)
def test_a_better_challenger_has_to_reach_the_least_return_too(
    min_return: float, verdict: Verdict
) -> None:
    compared = compare(normal(10, 6), Gate(min_return=min_return))

    own = compared.challenger_bounds
    assert compared.verdict == verdict
    assert own == confidence.of_mean(compared.challenger.returns, 0.05, seed=1)


def test_the_least_return_alone_promotes_nobody() -> None:
    assert compare(normal(0, 60, seed=3), Gate(min_return=0.0)).verdict == "inconclusive"


def test_a_return_that_is_exactly_the_least_return_is_enough() -> None:
    champion = np.full(400, 499.0)

    compared = compare_agents(Gate(min_return=500.0), playing(champion + 1, champion), seed=0)

    assert compared.verdict == "promote"


def test_a_smaller_chance_of_error_asks_for_more() -> None:
    differences = np.tile([-54.0, 66.0], 200)

    assert compare(differences).verdict == "promote"
    assert compare(differences, Gate(alpha=0.01)).verdict == "inconclusive"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_returns_that_are_not_finite_are_refused(value: float) -> None:
    good, broken = np.arange(400.0), np.arange(400.0)
    broken[30] = value

    with pytest.raises(
        ValueError,
        match=f"the challenger's episode with the seed 30 returned {value}, .*; check the environment's rewards",
    ):
        compare_agents(Gate(), playing(broken, good + normal(0, 60)), seed=0)
    with pytest.raises(
        ValueError, match=f"the champion's episode with the seed 30 returned {value}, "
    ):
        compare_agents(Gate(), playing(good + normal(0, 60), broken), seed=0)


def test_different_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="played different seeds"):
        compare_agents(
            Gate(),
            lambda start, stop: (
                episodes(np.ones(stop - start)),
                episodes(np.ones(stop - start), start=5),
            ),
            seed=0,
        )


def test_the_same_episodes_and_seed_give_the_same_bounds() -> None:
    champion, challenger = normal(200, 60), normal(205, 60, seed=1)

    one, again, other = (
        compare_agents(Gate(), playing(challenger, champion), seed=seed) for seed in (1, 1, 2)
    )

    assert one.looks == again.looks
    assert one.looks != other.looks


def test_every_pair_of_agents_and_every_setting_has_seeds_of_its_own() -> None:
    gate, agents = Gate(), ("agent", "m-1", "m-2", None)
    others: list[tuple[str, str, str | None, str | None]] = [
        ("another", "m-1", "m-2", None),
        ("agent", "m-3", "m-2", None),
        ("agent", "m-1", "m-3", None),
        ("agent", "m-2", "m-1", None),
        ("agent", "m-1", None, None),
        ("agent", "m-1", None, "m-2"),
        ("agent", "m-1", "m-2", "judge"),
        ("agent", "m-1", "m-2", "another judge"),
    ]
    settings = [
        replace(gate, **change)
        for change in (
            {"episodes": 399},
            {"alpha": 0.04},
            {"min_improvement": 1.0},
            {"min_return": 0.0},
        )
    ]

    seeds = [
        gate.seed(*agents),
        *(gate.seed(*other) for other in others),
        *(setting.seed(*agents) for setting in settings),
    ]

    assert len(set(seeds)) == 1 + len(others) + len(settings)
    assert gate.seed(*agents) == Gate().seed(*agents)
    assert all(0 <= seed < 2**64 for seed in seeds)


def test_gates_that_are_equal_have_the_same_seeds() -> None:
    whole, real = (
        Gate(min_improvement=0, min_return=475),
        Gate(min_improvement=0.0, min_return=475.0),
    )

    assert whole == real
    assert whole.seed("agent", "m-1", "m-2", None) == real.seed("agent", "m-1", "m-2", None)


def test_half_of_the_ties_count_as_improvements() -> None:
    compared = Comparison(
        Gate(), episodes([1, 2, 3, 4]), episodes([0, 2, 3, 9]), [], "inconclusive", None
    )

    assert compared.probability_of_improvement == (1 + 2 / 2) / 4


@pytest.mark.parametrize(
    ("challenger", "champion", "nothing"),
    [
        ([500, 500], [500, 500], True),
        ([500, 500], [500, 499], False),
        ([501, 501], [500, 500], False),
        ([9, 500], [9, 500], False),
    ],
)
def test_nothing_is_told_apart_where_every_episode_returns_the_same(
    challenger: list[int], champion: list[int], nothing: bool
) -> None:
    assert (
        Comparison(
            Gate(), episodes(challenger), episodes(champion), [], "tie", None
        ).tells_nothing_apart
        is nothing
    )


@pytest.mark.parametrize(
    ("count", "mean"), [(1, 0.0), (20, 0.0), (21, 0.5), (100, 2.0), (400, 9.5)]
)
def test_the_worst_are_a_twentieth_of_the_episodes_and_one_at_least(
    count: int, mean: float
) -> None:
    assert worst_returns_mean(np.random.default_rng(0).permutation(count).astype(float)) == mean


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"episodes": 1}, "episodes=1: .* two pairs at least"),
        ({"episodes": 0}, "episodes=0"),
        ({"alpha": 0.0}, "alpha=0.0: give a chance of error from 0.001 to 0.5"),
        ({"alpha": 0.0009}, "alpha=0.0009"),
        ({"alpha": 0.5}, "alpha=0.5"),
        ({"alpha": math.nan}, "alpha=nan"),
        ({"min_improvement": -1.0}, "min_improvement=-1.0: give a return of 0 or more"),
        ({"min_improvement": math.inf}, "min_improvement=inf"),
        ({"min_improvement": math.nan}, "min_improvement=nan"),
        ({"min_return": math.inf}, "min_return=inf: give a finite return"),
        ({"min_return": math.nan}, "min_return=nan"),
    ],
)
def test_settings_that_mean_nothing_are_refused(setting: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Gate(**setting)  # type: ignore[arg-type]


@pytest.mark.train
def test_the_shipped_gate_tells_a_rare_catastrophe_from_a_better_agent() -> None:
    catastrophe, better = "rare catastrophe 2 %, equal means", "near the ceiling, better"

    worse, right = (
        [promotion.simulate(name, number) for number in range(100)]
        for name in (catastrophe, better)
    )

    assert sum(outcome.word == "promote" for outcome in worse) <= 6
    assert sum(outcome.word == "promote" for outcome in right) >= 95
    assert sum(outcome.few_promote for outcome in worse) > 70
    assert {outcome.pairs for outcome in (*worse, *right) if outcome.word == "promote"} == {400}


def test_the_rounding_of_sums_is_no_difference() -> None:
    found = differences(
        np.array([0.6000000000000001, 1e6 + 1e-7, 2.0, 0.0]), np.array([0.6, 1e6, 1.0, 0.0])
    )

    assert found.tolist() == [0.0, 0.0, 1.0, 0.0]
