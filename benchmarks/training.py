"""What does the train step cost against bare `DQN.learn` with an EvalCallback at SB3's default threads?"""

from __future__ import annotations

import sys
from statistics import median

import click

from benchmarks import report


@click.command()
@click.option("--pairs", default=3, show_default=True)
@click.option("--timesteps", default=50_000, show_default=True, type=click.IntRange(min=2500), help="At least one evaluation.")
def main(pairs: int, timesteps: int) -> None:
    """Run both as processes in turn; print wall and CPU time, and the ratios."""
    ours = [sys.executable, "-m", "steps.train", "--timesteps", str(timesteps), "--seed"]
    bare = [sys.executable, "-m", "benchmarks.naive", "--timesteps", str(timesteps), "--seed"]
    measured = report.processes(pairs, {"train step": lambda seed: [*ours, str(seed)], "bare DQN.learn": lambda seed: [*bare, str(seed)]})
    step, learn = measured.values()
    click.echo(f"{report.machine()}\nDQN, CartPole-v1, {timesteps} steps, whole processes, {pairs} pairs\n")
    click.echo(report.header("what", "wall s", "CPU s"))
    for name, runs in measured.items():
        click.echo(report.row(name, f"{median([run.wall for run in runs]):.1f}", f"{median([run.cpu for run in runs]):.1f}"))
    click.echo("\n" + report.header("ratio", "median (range over the pairs)", "target", "verdict"))
    click.echo(report.row("wall time", *report.compare([run.wall for run in step], [run.wall for run in learn], at_most=1.05)))
    click.echo(report.row("CPU time", *report.compare([run.cpu for run in step], [run.cpu for run in learn], at_most=0.65)))


if __name__ == "__main__":
    main()
