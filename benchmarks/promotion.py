"""How often is the promotion gate wrong? Simulated gates between agents whose true means are known, and years of nightly trainings.

The gate is the one that is shipped: ``gate.compare_agents`` plays episodes that are drawn instead of played. Beside it, on the same
draws, the rule "higher mean of ten episodes".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

import click
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from benchmarks import report
from mlflow_sb3.envs.rollout import Episodes
from mlflow_sb3.promotion import gate
from mlflow_sb3.promotion.gate import Comparison, Gate, LOOKS, Verdict

Returns = NDArray[np.float64]
Draw = Callable[[Generator, int], tuple[Returns, Returns]]
"""Returns of the challenger and of the champion in so many pairs."""
Rule = Literal["gate", "ten episodes"]

FEW = 10
"""Episodes of the rule that is compared with the gate."""
MOST_WRONG, LEAST_RIGHT = 0.06, 0.95
"""Largest share of the gates that may promote an equal, and smallest share that has to promote the better one."""
NIGHTS = 365
MEAN, SPREAD, NOISE = 200.0, 30.0, 60.0
"""Of the nightly challengers' true means, and the standard deviation of an episode."""
MOST_REGRESSIONS, MOST_EPISODES = 0.01, 100.0


@dataclass(frozen=True)
class Scenario:
    """Two agents as distributions of their returns, and what the gate ought to do with them."""

    name: str
    assumption: str
    draw: Draw
    at_most: float | None = None
    at_least: float | None = None

    @property
    def target(self) -> str:
        """The share of gates that promote, in words."""
        if self.at_most is not None:
            return f"at most {percent(self.at_most, 0)}"
        return "none" if self.at_least is None else f"at least {percent(self.at_least, 0)}"

    def verdict(self, promoted: float) -> str:
        """Whether the share that was promoted is as it ought to be."""
        if self.target == "none":
            return "-"
        return report.verdict(
            met=(self.at_least or 0.0)
            <= promoted
            <= (1.0 if self.at_most is None else self.at_most)
        )


def ties(_: Generator, pairs: int) -> tuple[Returns, Returns]:
    return np.full(pairs, 500.0), np.full(pairs, 500.0)


def near_ceiling(
    challenger: float, champion: float, rng: Generator, pairs: int
) -> tuple[Returns, Returns]:
    """500 but for a share of failures, which end anywhere between 100 and 500."""

    def returns(failures: float) -> Returns:
        return np.where(rng.random(pairs) < failures, rng.uniform(100.0, 500.0, pairs), 500.0)

    return returns(challenger), returns(champion)


def heavy_tails(rng: Generator, pairs: int) -> tuple[Returns, Returns]:
    return 200.0 + 40.0 * rng.standard_t(3, pairs), 200.0 + 40.0 * rng.standard_t(3, pairs)


def shared_seeds(rng: Generator, pairs: int) -> tuple[Returns, Returns]:
    seeds = rng.normal(200.0, 100.0, pairs)
    return seeds + rng.normal(0.0, 50.0, pairs), seeds + rng.normal(0.0, 50.0, pairs)


def catastrophe(rate: float, rng: Generator, pairs: int) -> tuple[Returns, Returns]:
    """The challenger's better usual return makes up for its catastrophes exactly: both means are 450."""
    usual = 450.0 / (1.0 - rate)
    spread = (usual - 450.0) * 0.75
    failed = rng.random(pairs) < rate
    return np.where(failed, 0.0, rng.normal(usual, spread, pairs)), rng.normal(450.0, spread, pairs)


def lucky_champion(sigma: float, rng: Generator, pairs: int) -> tuple[Returns, Returns]:
    """The champion's mean rests on a few huge returns, the challenger has the same mean in every episode."""
    return np.full(pairs, 200.0), rng.lognormal(math.log(200.0) - sigma**2 / 2, sigma, pairs)


def normal(lead: float, rng: Generator, pairs: int) -> tuple[Returns, Returns]:
    return rng.normal(MEAN + lead, NOISE, pairs), rng.normal(MEAN, NOISE, pairs)


EQUAL = partial(Scenario, at_most=MOST_WRONG)
SCENARIOS = (
    EQUAL("ties", "both return 500 in every episode", ties),
    EQUAL(
        "near the ceiling, equal",
        "both return 500, but U(100, 500) in 5 % of the episodes",
        partial(near_ceiling, 0.05, 0.05),
    ),
    EQUAL(
        "heavy tails, equal",
        "both return 200 + 40 t, t of Student's distribution with 3 degrees of freedom",
        heavy_tails,
    ),
    EQUAL(
        "shared seeds, equal",
        "the seed gives both N(200, 100²), each adds N(0, 50²) of its own",
        shared_seeds,
    ),
    EQUAL(
        "rare catastrophe 2 %, equal means",
        "champion N(450, 6.9²); challenger N(459.2, 6.9²), but 0 in 2 % of the episodes",
        partial(catastrophe, 0.02),
    ),
    EQUAL(
        "rare catastrophe 1 %, equal means",
        "champion N(450, 3.4²); challenger N(454.5, 3.4²), but 0 in 1 % of the episodes",
        partial(catastrophe, 0.01),
    ),
    Scenario(
        "near the ceiling, better",
        "500, but U(100, 500) in 5 % of the challenger's and 15 % of the champion's episodes",
        partial(near_ceiling, 0.05, 0.15),
        at_least=LEAST_RIGHT,
    ),
)
LIMITS = (
    Scenario(
        "clearly worse", "challenger N(140, 60²), champion N(200, 60²)", partial(normal, -60.0)
    ),
    Scenario(
        "a little better", "challenger N(206, 60²), champion N(200, 60²)", partial(normal, 6.0)
    ),
    Scenario(
        "rare failures, equal",
        "both return 500, but U(100, 500) in 0.5 % of the episodes",
        partial(near_ceiling, 0.005, 0.005),
    ),
    Scenario(
        "rare catastrophe 0.5 %, equal means",
        "champion N(450, 1.7²); challenger N(452.3, 1.7²), but 0 in 0.5 % of the episodes",
        partial(catastrophe, 0.005),
    ),
    Scenario(
        "skewed champion, equal means",
        "challenger 200 in every episode, champion log-normal with the mean 200 and the standard deviation 262",
        partial(lucky_champion, 1.0),
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What the gate said, after how many pairs, and whether ten episodes would have promoted."""

    word: Verdict
    pairs: int
    few_promote: bool


@dataclass(frozen=True)
class Year:
    """The promotions of one year, what the true mean fell by in those that were regressions, the pairs played, and the last true mean."""

    promotions: int
    losses: list[float]
    pairs: int
    end: float


def compared(draw: Draw, rng: Generator, seed: int) -> Comparison:
    """The shipped gate, on episodes that are drawn when it asks for them."""

    def play(start: int, stop: int) -> tuple[Episodes, Episodes]:
        seeds, lengths = np.arange(start, stop), np.ones(stop - start, np.int64)
        challenger, champion = draw(rng, stop - start)
        return Episodes(seeds, challenger, lengths), Episodes(seeds, champion, lengths)

    return gate.compare_agents(Gate(), play, seed=seed)


def simulate(name: str, number: int) -> Outcome:
    """One gate of a scenario; the same name and number draw the same episodes."""
    scenario = next(scenario for scenario in (*SCENARIOS, *LIMITS) if scenario.name == name)
    played = compared(scenario.draw, np.random.default_rng([*name.encode(), number]), number)
    few = played.challenger.returns[:FEW].mean() > played.champion.returns[:FEW].mean()
    return Outcome(played.verdict, len(played.differences), bool(few))


def year(rule: Rule, number: int) -> Year:
    """A challenger every night against the champion of that night; both rules meet the same challengers and the same first champion."""
    means = np.random.default_rng([number, NIGHTS]).normal(MEAN, SPREAD, NIGHTS + 1)
    rng = np.random.default_rng([*rule.encode(), number])
    champion = float(means[0])
    promotions = pairs = 0
    losses: list[float] = []
    for night, challenger in enumerate(means[1:].tolist()):
        promoted, played = _night(
            rule, partial(_nightly, challenger, champion), rng, number * NIGHTS + night
        )
        pairs += played
        if promoted:
            promotions += 1
            losses += [champion - challenger] * (challenger < champion)
            champion = challenger
    return Year(promotions, losses, pairs, champion)


def _nightly(
    challenger: float, champion: float, rng: Generator, pairs: int
) -> tuple[Returns, Returns]:
    return rng.normal(challenger, NOISE, pairs), rng.normal(champion, NOISE, pairs)


def _night(rule: Rule, draw: Draw, rng: Generator, seed: int) -> tuple[bool, int]:
    if rule == "gate":
        played = compared(draw, rng, seed)
        return played.verdict == "promote", len(played.differences)
    challenger, champion = draw(rng, FEW)
    return bool(challenger.mean() > champion.mean()), FEW


def percent(rate: float, digits: int = 1) -> str:
    return f"{100 * rate:.{digits}f} %"


def share(count: int, of: int) -> str:
    """A share with its standard error."""
    rate = count / of
    return f"{100 * rate:.1f} ± {percent(math.sqrt(rate * (1 - rate) / of))}"


def tell(scenarios: Sequence[Scenario], outcomes: dict[str, list[Outcome]]) -> None:
    """How often the gate and ten episodes promoted, then after how many pairs the gate ended."""
    click.echo(
        report.header(
            "scenario",
            "assumption",
            "promoted",
            "by 10 episodes",
            "pairs on average",
            "target",
            "verdict",
        )
    )
    for scenario in scenarios:
        found = outcomes[scenario.name]
        promoted = sum(outcome.word == "promote" for outcome in found)
        few = share(sum(outcome.few_promote for outcome in found), len(found))
        pairs = f"{np.mean([outcome.pairs for outcome in found]):.0f}"
        judged = (scenario.target, scenario.verdict(promoted / len(found)))
        click.echo(
            report.row(
                scenario.name, scenario.assumption, share(promoted, len(found)), few, pairs, *judged
            )
        )
    looks = (*LOOKS, Gate().episodes)
    click.echo(
        f"\n{report.header('scenario', *(f'rejected after {pairs}' for pairs in looks), 'inconclusive', 'tie', 'promoted')}"
    )
    for scenario in scenarios:
        found = outcomes[scenario.name]
        counts = [
            sum(outcome.word == "reject" and outcome.pairs == pairs for outcome in found)
            for pairs in looks
        ]
        counts += [
            sum(outcome.word == word for outcome in found)
            for word in ("inconclusive", "tie", "promote")
        ]
        click.echo(report.row(scenario.name, *(percent(count / len(found)) for count in counts)))
    click.echo()


def tell_years(years: dict[Rule, list[Year]]) -> None:
    """Promotions and regressions of either rule, and what the gate's nights cost."""
    names = (
        "promotions a year",
        "regressions",
        "lost by one",
        "pairs a night",
        "episodes a night",
        "last champion's true mean",
    )
    click.echo(report.header("rule", *names))
    for rule, found in years.items():
        promotions, losses, pairs = _totals(found)
        regressed = f"{share(len(losses), promotions)} ({len(losses)} of {promotions})"
        lost = f"{np.mean(losses):.1f}" if losses else "-"
        last = np.array([one.end for one in found])
        ends = f"{last.mean():.1f} ± {last.std() / math.sqrt(len(last)):.1f}"
        click.echo(
            report.row(
                rule,
                f"{promotions / len(found):.1f}",
                regressed,
                lost,
                f"{pairs:.1f}",
                f"{2 * pairs:.1f}",
                ends,
            )
        )
    promotions, losses, pairs = _totals(years["gate"])
    rate = len(losses) / promotions
    click.echo(f"\n{report.header('the gate', 'found', 'target', 'verdict')}")
    for what, figure, target, met in (
        (
            "regressions among the promotions",
            percent(rate, 2),
            "under 1 %",
            rate < MOST_REGRESSIONS,
        ),
        (
            "episodes a night, of both agents",
            f"{2 * pairs:.1f}",
            "at most 100",
            2 * pairs <= MOST_EPISODES,
        ),
        ("pairs a night", f"{pairs:.1f}", "at most 100", pairs <= MOST_EPISODES),
    ):
        click.echo(report.row(what, figure, target, report.verdict(met=met)))


def _totals(years: list[Year]) -> tuple[int, list[float], float]:
    """All promotions, the losses of all regressions, and the pairs of an average night."""
    losses = [loss for one in years for loss in one.losses]
    return (
        sum(one.promotions for one in years),
        losses,
        sum(one.pairs for one in years) / len(years) / NIGHTS,
    )


@click.command()
@click.option(
    "--gates",
    default=2000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Simulated gates of every scenario.",
)
@click.option(
    "--years",
    default=200,
    show_default=True,
    type=click.IntRange(min=1),
    help="Simulated years of nightly trainings.",
)
@click.option(
    "--jobs", default=2, show_default=True, type=click.IntRange(min=1), help="Processes at once."
)
def main(gates: int, years: int, jobs: int) -> None:
    """Simulate the gates and the years, and print their tables."""
    click.echo(report.machine())
    with ProcessPoolExecutor(jobs, mp_context=report.spawn_context()) as pool:
        for scenarios in (SCENARIOS, LIMITS):
            outcomes = {
                one.name: list(pool.map(partial(simulate, one.name), range(gates), chunksize=50))
                for one in scenarios
            }
            tell(scenarios, outcomes)
        rules: tuple[Rule, ...] = ("gate", "ten episodes")
        tell_years({rule: list(pool.map(partial(year, rule), range(years))) for rule in rules})


if __name__ == "__main__":
    main()
