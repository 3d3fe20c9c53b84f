"""Measure one action of `load_policy`, `DQN.predict`, the pyfunc and a plain wrapper."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import click
import numpy as np
import torch

from benchmarks import agents, report

CALLS = 1000


def seconds_per_call(call: Callable[[], object]) -> float:
    """Return the mean duration of ``CALLS`` calls in seconds."""

    def block() -> None:
        for _ in range(CALLS):
            call()

    return report.seconds(block) / CALLS


@click.command()
@click.option("--repeats", default=15, show_default=True, help="Blocks of 1000 calls.")
def main(repeats: int) -> None:
    """Print the time per action and the ratios."""
    model, policy, pyfunc, wrapper = agents.load_agents()
    observation = np.array([0.01, -0.02, 0.03, 0.04], dtype=np.float32)
    batch = np.array([observation], dtype=np.float64)
    threads = torch.get_num_threads()

    def predict_on_one_thread() -> float:
        torch.set_num_threads(1)
        duration = seconds_per_call(lambda: model.predict(observation, deterministic=True))
        torch.set_num_threads(threads)
        return duration

    times = report.alternate(
        repeats,
        {
            "load_policy": lambda: seconds_per_call(lambda: policy.predict(observation)),
            "DQN.predict": lambda: seconds_per_call(
                lambda: model.predict(observation, deterministic=True)
            ),
            "DQN.predict, one torch thread": predict_on_one_thread,
            "pyfunc": lambda: seconds_per_call(lambda: pyfunc.predict(batch)),
            "plain wrapper": lambda: seconds_per_call(lambda: wrapper.predict(batch)),
        },
    )
    click.echo(
        f"{report.machine()}\nOne observation, {CALLS} calls per block, "
        f"median of {repeats} blocks\n"
    )
    click.echo(report.header("what", "µs per action"))
    for name, seconds in times.items():
        click.echo(report.row(name, f"{1e6 * median(seconds):.1f}"))
    click.echo("\n" + report.header("ratio", "median (range over the pairs)", "target", "verdict"))
    click.echo(
        report.row(
            "load_policy / DQN.predict",
            *report.compare(times["load_policy"], times["DQN.predict"], at_most=0.15),
        )
    )
    click.echo(
        report.row(
            "pyfunc / plain wrapper",
            *report.compare(times["pyfunc"], times["plain wrapper"], at_most=0.5),
        )
    )


if __name__ == "__main__":
    main()
