"""What does one action cost? `load_policy` against `DQN.predict`, our pyfunc against the pyfunc of a plain wrapper."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import click
import numpy as np
import torch

from benchmarks import agents, report

CALLS = 1000


def repeated(call: Callable[[], object]) -> float:
    """Seconds a call, over many."""

    def block() -> None:
        for _ in range(CALLS):
            call()

    return report.seconds(block) / CALLS


@click.command()
@click.option("--repeats", default=15, show_default=True)
def main(repeats: int) -> None:
    """Print the time of an action, and the ratios."""
    model, policy, pyfunc, wrapper = agents.loaded()
    one = np.array([0.01, -0.02, 0.03, 0.04], dtype=np.float32)
    batch = np.array([one], dtype=np.float64)
    threads = torch.get_num_threads()

    def on_one_thread() -> float:
        torch.set_num_threads(1)
        taken = repeated(lambda: model.predict(one, deterministic=True))
        torch.set_num_threads(threads)
        return taken

    times = report.alternate(
        repeats,
        {
            "load_policy": lambda: repeated(lambda: policy.predict(one)),
            "DQN.predict": lambda: repeated(lambda: model.predict(one, deterministic=True)),
            "DQN.predict, one torch thread": on_one_thread,
            "pyfunc": lambda: repeated(lambda: pyfunc.predict(batch)),
            "pyfunc of a plain wrapper": lambda: repeated(lambda: wrapper.predict(batch)),
        },
    )
    click.echo(
        f"{report.machine()}\nOne observation, {CALLS} calls a block, median of {repeats} blocks\n"
    )
    click.echo(report.header("what", "µs an action"))
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
            *report.compare(times["pyfunc"], times["pyfunc of a plain wrapper"], at_most=0.5),
        )
    )


if __name__ == "__main__":
    main()
