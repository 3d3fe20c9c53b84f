"""Measure the workflow `main`, and a plain script that trains, logs a wrapper and plays with it."""

from __future__ import annotations

import sys
from statistics import median

import click

from benchmarks import report


@click.command()
@click.option("--pairs", default=3, show_default=True, help="Runs of each program.")
@click.option(
    "--timesteps",
    default=50_000,
    show_default=True,
    type=click.IntRange(min=2500),
    help="Environment steps. The minimum allows one evaluation.",
)
def main(pairs: int, timesteps: int) -> None:
    """Run both as processes in turn, each with a new store. Print the times and the ratio."""
    main_command = [
        "mlflow",
        "run",
        str(report.FOLDER.parent),
        "-e",
        "main",
        "-P",
        f"timesteps={timesteps}",
        "--env-manager",
        "local",
    ]
    script_command = [
        sys.executable,
        "-m",
        "benchmarks.naive",
        "--timesteps",
        str(timesteps),
        "--whole",
        "--seed",
    ]
    measured = report.processes(
        pairs,
        {
            "mlflow run . -e main": lambda seed: [*main_command, "-P", f"seed={seed}"],
            "plain script": lambda seed: [*script_command, str(seed)],
        },
    )
    workflow, script = measured.values()
    click.echo(
        f"{report.machine()}\nDQN, CartPole-v1, {timesteps} steps, whole processes, {pairs} pairs\n"
    )
    click.echo(report.header("what", "wall s", "CPU s"))
    for name, runs in measured.items():
        click.echo(
            report.row(
                name,
                f"{median([run.wall for run in runs]):.1f}",
                f"{median([run.cpu for run in runs]):.1f}",
            )
        )
    click.echo("\n" + report.header("ratio", "median (range over the pairs)", "target", "verdict"))
    click.echo(
        report.row(
            "wall time",
            *report.compare(
                [run.wall for run in workflow], [run.wall for run in script], at_most=0.85
            ),
        )
    )


if __name__ == "__main__":
    main()
