"""How often is the promotion gate wrong? Simulate gates and years of nightly trainings.

The gate is ``gate.compare_agents`` with its default settings. The returns are drawn from
distributions with known means. The rule "higher mean of ten episodes" is applied to the first ten
pairs of the same returns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import click
import numpy as np

from benchmarks import promotion_series, report
from benchmarks.promotion_scenarios import (
    LIMITS,
    NIGHTS,
    SCENARIOS,
    GateOutcome,
    Rule,
    Scenario,
    YearOutcome,
    format_percent,
    simulate_gate,
    simulate_year,
)
from mlflow_sb3.promotion.gate import LOOKS, Gate

MAX_REGRESSION_RATE = 0.01
"""Largest acceptable rate of regressions among the promotions of a year."""
MAX_EPISODES_PER_NIGHT = 100.0


def format_rate(count: int, total: int) -> str:
    """Format a rate with its standard error."""
    rate = count / total
    return f"{100 * rate:.1f} ± {format_percent(math.sqrt(rate * (1 - rate) / total))}"


def print_promotions(scenarios: Sequence[Scenario], outcomes: dict[str, list[GateOutcome]]) -> None:
    """Print how often the gate and the rule of ten episodes promoted the challenger."""
    columns = (
        "promoted",
        "after 500 recorded episodes",
        "by 10 episodes",
        "pairs on average",
        "target",
        "verdict",
    )
    click.echo(report.header("scenario", "assumption", *columns))
    for scenario in scenarios:
        gates = outcomes[scenario.name]
        promoted = sum(outcome.verdict == "promote" for outcome in gates)
        promoted_after_record = sum(outcome.is_promoted_after_record for outcome in gates)
        promoted_by_few = sum(outcome.is_promoted_by_few for outcome in gates)
        click.echo(
            report.row(
                scenario.name,
                scenario.assumption,
                format_rate(promoted, len(gates)),
                format_rate(promoted_after_record, len(gates)),
                format_rate(promoted_by_few, len(gates)),
                f"{np.mean([outcome.pairs for outcome in gates]):.0f}",
                scenario.target,
                scenario.verdict(promoted / len(gates)),
            )
        )


def print_verdicts(scenarios: Sequence[Scenario], outcomes: dict[str, list[GateOutcome]]) -> None:
    """Print how often the gate ended with each verdict, and after how many pairs it rejected."""
    looks = (*LOOKS, Gate().episodes)
    rejected = [f"rejected after {pairs}" for pairs in looks]
    click.echo(f"\n{report.header('scenario', *rejected, 'inconclusive', 'tie', 'promoted')}")
    for scenario in scenarios:
        gates = outcomes[scenario.name]
        counts = [
            sum(outcome.verdict == "reject" and outcome.pairs == pairs for outcome in gates)
            for pairs in looks
        ]
        counts += [
            sum(outcome.verdict == verdict for outcome in gates)
            for verdict in ("inconclusive", "tie", "promote")
        ]
        rates = (format_percent(count / len(gates)) for count in counts)
        click.echo(report.row(scenario.name, *rates))
    click.echo()


def print_years(years: dict[Rule, list[YearOutcome]]) -> None:
    """Print promotions, regressions and cost of a year by each rule."""
    columns = (
        "promotions a year",
        "regressions",
        "average loss per regression",
        "pairs a night",
        "episodes a night",
        "last champion's true mean",
    )
    click.echo(report.header("rule", *columns))
    for rule, outcomes in years.items():
        promotions, losses, pairs = _sum_years(outcomes)
        regressions = f"{format_rate(len(losses), promotions)} ({len(losses)} of {promotions})"
        last = np.array([outcome.last_mean for outcome in outcomes])
        click.echo(
            report.row(
                rule,
                f"{promotions / len(outcomes):.1f}",
                regressions,
                f"{np.mean(losses):.1f}" if losses else "-",
                f"{pairs:.1f}",
                f"{2 * pairs:.1f}",
                f"{last.mean():.1f} ± {last.std() / math.sqrt(len(last)):.1f}",
            )
        )


def print_targets(years: list[YearOutcome]) -> None:
    """Print whether the gate meets its targets for a year."""
    promotions, losses, pairs = _sum_years(years)
    rate, limit = len(losses) / promotions, MAX_EPISODES_PER_NIGHT
    click.echo(f"\n{report.header('the gate', 'measured', 'target', 'verdict')}")
    for name, value, target, is_met in (
        (
            "regressions among the promotions",
            format_percent(rate, 2),
            "under 1 %",
            rate < MAX_REGRESSION_RATE,
        ),
        (
            "episodes a night, of both agents",
            f"{2 * pairs:.1f}",
            "at most 100",
            2 * pairs <= limit,
        ),
        ("pairs a night", f"{pairs:.1f}", "at most 100", pairs <= limit),
    ):
        click.echo(report.row(name, value, target, report.verdict(met=is_met)))


def print_series(pool: ProcessPoolExecutor, series: int) -> None:
    """Print how often 30 nightly challengers of one champion are promoted."""
    click.echo(f"\n{report.header('30 equal challengers', 'promoted at least once')}")
    rules = (("alpha=0.05", False), ("alpha_per_reign=0.05", True))
    for name, has_budget in rules:
        simulate = partial(promotion_series.is_any_promoted, has_budget=has_budget)
        promoted = sum(pool.map(simulate, range(series), chunksize=10))
        click.echo(report.row(name, format_rate(promoted, series)))
    nights = [f"night {night}" for night in promotion_series.POWER_NIGHTS]
    click.echo(f"\n{report.header('power for 0.3 standard deviations', *nights)}")
    for name, has_budget in rules:
        rates = []
        for night in promotion_series.POWER_NIGHTS:
            simulate = partial(
                promotion_series.is_promoted,
                night=night,
                lead=promotion_series.LEAD,
                has_budget=has_budget,
            )
            rates.append(format_rate(sum(pool.map(simulate, range(series), chunksize=10)), series))
        click.echo(report.row(name, *rates))


def _sum_years(years: list[YearOutcome]) -> tuple[int, list[float], float]:
    """Return all promotions, the losses of all regressions, and the mean pairs of a night."""
    promotions = sum(year.promotions for year in years)
    losses = [loss for year in years for loss in year.losses]
    return promotions, losses, sum(year.pairs for year in years) / len(years) / NIGHTS


@click.command()
@click.option(
    "--gates",
    default=2000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Number of simulated gates of each scenario.",
)
@click.option(
    "--years",
    default=200,
    show_default=True,
    type=click.IntRange(min=1),
    help="Number of simulated years of nightly trainings.",
)
@click.option(
    "--series",
    default=1000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Number of simulated series of 30 nights.",
)
@click.option(
    "--jobs",
    default=2,
    show_default=True,
    type=click.IntRange(min=1),
    help="Number of processes.",
)
@click.option(
    "--unpaired",
    is_flag=True,
    help="Simulate only gates without common seeds, as for environments of a function.",
)
def main(*, gates: int, years: int, series: int, jobs: int, unpaired: bool) -> None:
    """Simulate gates and years of nightly trainings, and print their tables."""
    click.echo(report.machine())
    with ProcessPoolExecutor(jobs, mp_context=report.spawn_context()) as pool:
        for scenarios in (SCENARIOS, LIMITS):
            outcomes = {
                scenario.name: list(
                    pool.map(
                        partial(simulate_gate, scenario.name, is_paired=not unpaired),
                        range(gates),
                        chunksize=50,
                    )
                )
                for scenario in scenarios
            }
            print_promotions(scenarios, outcomes)
            print_verdicts(scenarios, outcomes)
        if unpaired:
            return
        rules: tuple[Rule, ...] = ("gate", "ten episodes")
        simulated = {
            rule: list(pool.map(partial(simulate_year, rule), range(years))) for rule in rules
        }
        print_years(simulated)
        print_targets(simulated["gate"])
        print_series(pool, series)


if __name__ == "__main__":
    main()
