"""Measure the throughput of two trainings at once, and of one after the other.

The training uses one core, and its worker process for evaluations a second one.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import click

from benchmarks import report

VARIANTS = {
    "with evaluations": ["--selection", "race"],
    "without": ["--selection", "none"],
}


def train(seed: int, timesteps: int, options: list[str]) -> None:
    command = [sys.executable, "-m", "steps.train", "--seed", str(seed)]
    report.process([*command, "--timesteps", str(timesteps), *options])


@click.command()
@click.option("--pairs", default=3, show_default=True, help="Repetitions of each measurement.")
@click.option("--timesteps", default=20_000, show_default=True, type=click.IntRange(min=1000))
def main(pairs: int, timesteps: int) -> None:
    """Train DQN on CartPole-v1 as processes, alone and in twos. Print the throughput."""
    click.echo(report.machine())
    click.echo(report.header("trainings", "one alone, s", "two at once, s", "throughput"))
    for name, options in VARIANTS.items():

        def train_two(options: list[str] = options) -> None:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda seed: train(seed, timesteps, options), range(2)))

        measured = report.alternate(
            pairs,
            {
                "one": lambda options=options: report.seconds(  # type: ignore[misc]
                    lambda: train(0, timesteps, options)
                ),
                "two": lambda train_two=train_two: report.seconds(train_two),  # type: ignore[misc]
            },
        )
        one, two = median(measured["one"]), median(measured["two"])
        click.echo(report.row(name, f"{one:.1f}", f"{two:.1f}", f"{2 * one / two:.2f}"))


if __name__ == "__main__":
    main()
