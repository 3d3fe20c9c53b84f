"""Compare the returns of rl_zoo3's presets in this project with the results of rl_zoo3."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks import report


@dataclass(frozen=True)
class PublishedResult:
    """Mean and standard deviation of the returns in benchmark.md of rl_zoo3."""

    algo: str
    env_id: str
    mean: float
    std: float


ZOO = (
    PublishedResult("sac", "Pendulum-v1", -156.995, 88.714),
    PublishedResult("qrdqn", "Acrobot-v1", -69.135, 9.967),
)


def run_main(published: PublishedResult) -> tuple[float, float]:
    """Run ``main`` with a preset. Return mean and standard deviation of the final episodes."""
    arguments = ["-P", f"env={published.env_id}", "-P", f"algo={published.algo}"]
    with tempfile.TemporaryDirectory() as folder:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        variables = {"PATH": path, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        command = [
            "mlflow",
            "run",
            str(report.FOLDER.parent),
            "-e",
            "main",
            "--env-manager",
            "local",
            *arguments,
        ]
        done = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | variables,
            capture_output=True,
            check=False,
            text=True,
        )
    match = re.search(r"Mean reward: (\S+) \+/- (\S+)", done.stdout)
    if done.returncode != 0 or match is None:
        raise click.ClickException(
            f"{' '.join(command)} exited with code {done.returncode}:\n{done.stderr[-2000:]}"
        )
    return float(match[1]), float(match[2])


@click.command()
def main() -> None:
    """Train with each preset. Print the results of this project and of rl_zoo3."""
    click.echo(
        f"{report.machine()}\nmlflow run . -e main, seed 0, 100 fresh episodes of the champion\n"
    )
    click.echo(
        report.header("preset", "here", "rl_zoo3", "within one standard deviation, or better")
    )
    for published in ZOO:
        mean, std = run_main(published)
        met = mean >= published.mean - published.std
        texts = (
            f"{mean:.1f} ± {std:.1f}",
            f"{published.mean:.1f} ± {published.std:.1f}",
            report.verdict(met=met),
        )
        click.echo(report.row(f"{published.algo} {published.env_id}", *texts))


if __name__ == "__main__":
    main()
