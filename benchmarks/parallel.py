"""Measure the throughput of two trainings at once, relative to one after the other.

A training uses one core for learning, and a second one for the evaluations in its worker process.
Two trainings therefore cannot be twice as fast on two cores.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import click

from benchmarks import report
from benchmarks.report import ProcessTime

VARIANTS = {
    "with evaluations": ["--selection", "race"],
    "without": ["--selection", "none"],
}


@click.command()
@click.option("--pairs", default=3, show_default=True, help="Repetitions of each measurement.")
@click.option("--timesteps", default=20_000, show_default=True, type=click.IntRange(min=1000))
def main(pairs: int, timesteps: int) -> None:
    """Train DQN on CartPole-v1 as processes, alone and in twos. Print the throughput."""
    click.echo(report.machine())
    columns = ("one alone, s", "its CPU time, s", "two at once, s", "throughput", "limit")
    click.echo(report.header("trainings", *columns))
    for name, options in VARIANTS.items():
        one, two = measure(pairs, ["--timesteps", str(timesteps), *options])
        wall, cpu = (median(getattr(time, key) for time in one) for key in ("wall", "cpu"))
        both = median(two)
        limit = min(2.0, (os.cpu_count() or 1) * wall / cpu)
        values = (f"{wall:.1f}", f"{cpu:.1f}", f"{both:.1f}", f"{2 * wall / both:.2f}")
        click.echo(report.row(name, *values, f"{limit:.2f}"))


def measure(pairs: int, options: list[str]) -> tuple[list[ProcessTime], list[float]]:
    """Return the times of one training alone, and the wall times of two at once, in seconds."""
    one: list[ProcessTime] = []
    two: list[float] = []
    for _ in range(pairs):
        one.append(train(0, options))
        two.append(report.seconds(lambda: train_two(options)))
    return one, two


def train(seed: int, options: list[str]) -> ProcessTime:
    """Run the step train in a process of its own."""
    return report.process([sys.executable, "-m", "steps.train", "--seed", str(seed), *options])


def train_two(options: list[str]) -> None:
    """Run the step train with two seeds at once."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda seed: train(seed, options), range(2)))


if __name__ == "__main__":
    main()
