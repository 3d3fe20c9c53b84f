"""Simulate the promotion gate with agents whose mean returns are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.signal import lfilter

from benchmarks import report
from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.promotion import gate, recorded_returns
from mlflow_sb3.promotion.gate import Comparison, Gate, Verdict
from mlflow_sb3.promotion.recorded_returns import RecordedReturns

Returns = NDArray[np.float64]
DrawReturns = Callable[[Generator, int], tuple[Returns, Returns]]
"""Draw the returns of challenger and champion for a number of pairs."""
Rule = Literal["gate", "ten episodes"]

RECORDED_EPISODES = 500
"""Earlier episodes of a champion: 100 of ``evaluate``, and 400 of the gate that it won."""
FEW_EPISODES = 10
"""Number of episodes of the rule that the gate is compared with."""
MAX_WRONG_RATE = 0.06
"""Largest acceptable rate of promotions of a challenger that is not better."""
MIN_RIGHT_RATE = 0.95
"""Smallest acceptable rate of promotions of the better challenger."""
NIGHTS = 365
MEAN, MEAN_STD = 200.0, 30.0
"""Mean and standard deviation of the true mean returns of the nightly challengers."""
RETURN_STD = 60.0
"""Standard deviation of the return of an episode."""


@dataclass(frozen=True)
class Scenario:
    """Two agents given by the distributions of their returns.

    Attributes:
        name: Name in the tables. The simulated returns depend on it.
        assumption: Description of the distributions.
        draw: Draw returns of both agents.
        at_most: Largest acceptable rate of promotions.
        at_least: Smallest acceptable rate of promotions.
    """

    name: str
    assumption: str
    draw: DrawReturns
    at_most: float | None = None
    at_least: float | None = None

    @property
    def target(self) -> str:
        """Return the acceptable rate of promotions as text."""
        if self.at_most is not None:
            return f"at most {format_percent(self.at_most, 0)}"
        return "none" if self.at_least is None else f"at least {format_percent(self.at_least, 0)}"

    def verdict(self, rate: float) -> str:
        """Return whether a rate of promotions is acceptable, as text."""
        if self.target == "none":
            return "-"
        lowest = self.at_least or 0.0
        highest = 1.0 if self.at_most is None else self.at_most
        return report.verdict(met=lowest <= rate <= highest)


@dataclass(frozen=True)
class GateOutcome:
    """Result of one simulated gate.

    Attributes:
        verdict: Verdict of the gate.
        pairs: Number of pairs played.
        is_promoted_by_few: Whether the challenger has the higher mean of the first ten pairs.
        is_promoted_after_record: Whether the gate promotes although 500 earlier episodes of the
            champion are recorded.
    """

    verdict: Verdict
    pairs: int
    is_promoted_by_few: bool
    is_promoted_after_record: bool


@dataclass(frozen=True)
class YearOutcome:
    """Result of one simulated year with a challenger each night.

    Attributes:
        promotions: Number of promotions.
        losses: Loss of true mean return of each promotion of a worse challenger.
        pairs: Number of pairs played.
        last_mean: True mean return of the last champion.
    """

    promotions: int
    losses: list[float]
    pairs: int
    last_mean: float


def format_percent(rate: float, digits: int = 1) -> str:
    return f"{100 * rate:.{digits}f} %"


def draw_ties(_: Generator, pairs: int) -> tuple[Returns, Returns]:
    return np.full(pairs, 500.0), np.full(pairs, 500.0)


def draw_near_ceiling(
    challenger: float, champion: float, rng: Generator, pairs: int
) -> tuple[Returns, Returns]:
    """Draw 500, or a return between 100 and 500 at the failure rate of the agent."""

    def draw(failure_rate: float) -> Returns:
        return np.where(rng.random(pairs) < failure_rate, rng.uniform(100.0, 500.0, pairs), 500.0)

    return draw(challenger), draw(champion)


def draw_heavy_tails(rng: Generator, pairs: int) -> tuple[Returns, Returns]:
    return 200.0 + 40.0 * rng.standard_t(3, pairs), 200.0 + 40.0 * rng.standard_t(3, pairs)


def draw_shared_seeds(rng: Generator, pairs: int) -> tuple[Returns, Returns]:
    seeds = rng.normal(200.0, 100.0, pairs)
    return seeds + rng.normal(0.0, 50.0, pairs), seeds + rng.normal(0.0, 50.0, pairs)


def draw_catastrophe(rate: float, rng: Generator, pairs: int) -> tuple[Returns, Returns]:
    """Draw a challenger that returns more than the champion, or rarely 0; both means are 450."""
    usual = 450.0 / (1.0 - rate)
    spread = (usual - 450.0) * 0.75
    has_failed = rng.random(pairs) < rate
    challenger = np.where(has_failed, 0.0, rng.normal(usual, spread, pairs))
    return challenger, rng.normal(450.0, spread, pairs)


def draw_skewed_champion(sigma: float, rng: Generator, pairs: int) -> tuple[Returns, Returns]:
    """Draw a constant challenger and a log-normal champion; both means are 200."""
    return np.full(pairs, 200.0), rng.lognormal(math.log(200.0) - sigma**2 / 2, sigma, pairs)


def draw_jackpots(rng: Generator, pairs: int) -> tuple[Returns, Returns]:
    """Draw a challenger N(220, 10²), and a champion N(200, 10²) with 10,000 more in 0.2 %."""
    jackpots = np.where(rng.random(pairs) < 1 / 500, 10_000.0, 0.0)
    return rng.normal(220.0, 10.0, pairs), rng.normal(200.0, 10.0, pairs) + jackpots


def draw_pareto_champion(shape: float, rng: Generator, pairs: int) -> tuple[Returns, Returns]:
    """Draw a constant challenger and a champion of Pareto's distribution with the same mean."""
    champion = 100.0 * (1.0 + rng.pareto(shape, pairs))
    return np.full(pairs, 100.0 * shape / (shape - 1.0)), champion


def draw_correlated(correlation: float, rng: Generator, pairs: int) -> tuple[Returns, Returns]:
    """Draw episodes of which each one is correlated with the one before, for each agent."""

    def draw() -> Returns:
        noise = rng.normal(0.0, RETURN_STD * math.sqrt(1.0 - correlation**2), pairs)
        noise[0] = rng.normal(0.0, RETURN_STD)
        returns: Returns = MEAN + lfilter([1.0], [1.0, -correlation], noise)
        return returns

    return draw(), draw()


def draw_normal(lead: float, rng: Generator, pairs: int) -> tuple[Returns, Returns]:
    return rng.normal(MEAN + lead, RETURN_STD, pairs), rng.normal(MEAN, RETURN_STD, pairs)


EqualScenario = partial(Scenario, at_most=MAX_WRONG_RATE)
SCENARIOS = (
    EqualScenario("ties", "both return 500 in every episode", draw_ties),
    EqualScenario(
        "near the ceiling, equal",
        "both return 500, but U(100, 500) in 5 % of the episodes",
        partial(draw_near_ceiling, 0.05, 0.05),
    ),
    EqualScenario(
        "heavy tails, equal",
        "both return 200 + 40 t, t of Student's distribution with 3 degrees of freedom",
        draw_heavy_tails,
    ),
    EqualScenario(
        "shared seeds, equal",
        "the seed gives both N(200, 100²), each adds N(0, 50²) of its own",
        draw_shared_seeds,
    ),
    EqualScenario(
        "rare catastrophe 2 %, equal means",
        "champion N(450, 6.9²); challenger N(459.2, 6.9²), but 0 in 2 % of the episodes",
        partial(draw_catastrophe, 0.02),
    ),
    EqualScenario(
        "rare catastrophe 1 %, equal means",
        "champion N(450, 3.4²); challenger N(454.5, 3.4²), but 0 in 1 % of the episodes",
        partial(draw_catastrophe, 0.01),
    ),
    Scenario(
        "near the ceiling, better",
        "500, but U(100, 500) in 5 % of the challenger's and 15 % of the champion's episodes",
        partial(draw_near_ceiling, 0.05, 0.15),
        at_least=MIN_RIGHT_RATE,
    ),
)
LIMITS = (
    Scenario(
        "clearly worse",
        "challenger N(140, 60²), champion N(200, 60²)",
        partial(draw_normal, -60.0),
    ),
    Scenario(
        "a little better",
        "challenger N(206, 60²), champion N(200, 60²)",
        partial(draw_normal, 6.0),
    ),
    Scenario(
        "rare failures, equal",
        "both return 500, but U(100, 500) in 0.5 % of the episodes",
        partial(draw_near_ceiling, 0.005, 0.005),
    ),
    Scenario(
        "rare catastrophe 0.5 %, equal means",
        "champion N(450, 1.7²); challenger N(452.3, 1.7²), but 0 in 0.5 % of the episodes",
        partial(draw_catastrophe, 0.005),
    ),
    Scenario(
        "skewed champion, equal means",
        "challenger 200 in every episode, champion log-normal with the mean 200 "
        "and the standard deviation 262",
        partial(draw_skewed_champion, 1.0),
    ),
    Scenario(
        "rare high returns, equal means",
        "challenger N(220, 10²), champion N(200, 10²), but 10,000 more in 0.2 % of the episodes",
        draw_jackpots,
    ),
    Scenario(
        "Pareto, equal means",
        "challenger 191 in every episode, champion 100 times Pareto's distribution of shape 2.1",
        partial(draw_pareto_champion, 2.1),
    ),
    Scenario(
        "correlated episodes, equal",
        "both N(200, 60²), each episode with a correlation of 0.8 to the one before",
        partial(draw_correlated, 0.8),
    ),
)
"""Scenarios beyond the targets, to know the limits of the gate."""


def compare(draw: DrawReturns, rng: Generator, seed: int, *, is_paired: bool = True) -> Comparison:
    """Run the gate with its default settings on simulated returns.

    Without pairs, the returns of the champion are drawn independently of the challenger's.
    """

    def play(start: int, stop: int) -> tuple[Episodes, Episodes]:
        seeds, lengths = np.arange(start, stop), np.ones(stop - start, np.int64)
        challenger, champion = draw(rng, stop - start)
        if not is_paired:
            _, champion = draw(rng, stop - start)
        return Episodes(seeds, challenger, lengths), Episodes(seeds, champion, lengths)

    return gate.compare_agents(Gate(), play, seed=seed, is_paired=is_paired)


def simulate_gate(name: str, number: int, *, is_paired: bool = True) -> GateOutcome:
    """Simulate one gate of a scenario; the same name and number give the same returns."""
    scenario = next(scenario for scenario in (*SCENARIOS, *LIMITS) if scenario.name == name)
    rng = np.random.default_rng([*name.encode(), number])
    comparison = compare(scenario.draw, rng, number, is_paired=is_paired)
    challenger_mean = comparison.challenger.returns[:FEW_EPISODES].mean()
    champion_mean = comparison.champion.returns[:FEW_EPISODES].mean()
    return GateOutcome(
        comparison.verdict,
        comparison.looks[-1].pairs,
        bool(challenger_mean > champion_mean),
        comparison.verdict == "promote" and not _is_missed(scenario, comparison, number),
    )


def _is_missed(scenario: Scenario, comparison: Comparison, number: int) -> bool:
    """Return whether earlier episodes of the champion speak against its replacement."""
    rng = np.random.default_rng([*scenario.name.encode(), number, RECORDED_EPISODES])
    _, earlier = scenario.draw(rng, RECORDED_EPISODES)
    missed = recorded_returns.find_missed_return(
        RecordedReturns(RECORDED_EPISODES, float(earlier.max())),
        champion_mean=float(comparison.champion.returns.mean()),
        champion_max=float(comparison.champion.returns.max()),
        lower_bound=comparison.looks[-1].bounds.lower,
        min_improvement=comparison.gate.min_improvement,
    )
    return missed is not None


def simulate_year(rule: Rule, number: int) -> YearOutcome:
    """Simulate a year in which a challenger meets the current champion each night.

    Both rules get the same challengers and the same first champion.
    """
    means = np.random.default_rng([number, NIGHTS]).normal(MEAN, MEAN_STD, NIGHTS + 1)
    rng = np.random.default_rng([*rule.encode(), number])
    champion = float(means[0])
    promotions = pairs = 0
    losses: list[float] = []
    for night, challenger in enumerate(means[1:].tolist()):
        draw = partial(_draw_nightly, challenger, champion)
        is_promoted, played = _apply_rule(rule, draw, rng, number * NIGHTS + night)
        pairs += played
        if is_promoted:
            promotions += 1
            losses += [champion - challenger] * (challenger < champion)
            champion = challenger
    return YearOutcome(promotions, losses, pairs, champion)


def _draw_nightly(
    challenger: float, champion: float, rng: Generator, pairs: int
) -> tuple[Returns, Returns]:
    return rng.normal(challenger, RETURN_STD, pairs), rng.normal(champion, RETURN_STD, pairs)


def _apply_rule(rule: Rule, draw: DrawReturns, rng: Generator, seed: int) -> tuple[bool, int]:
    """Return whether the challenger is promoted, and how many pairs were played."""
    if rule == "gate":
        comparison = compare(draw, rng, seed)
        return comparison.verdict == "promote", len(comparison.differences)
    challenger, champion = draw(rng, FEW_EPISODES)
    return bool(challenger.mean() > champion.mean()), FEW_EPISODES
