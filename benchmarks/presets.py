"""Do rl_zoo3's presets reach here what rl_zoo3 has published for them?"""

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
class Published:
    """Mean and standard deviation of the episode returns in rl_zoo3's table of trained agents (benchmark.md)."""

    algo: str
    env_id: str
    mean: float
    std: float


ZOO = (
    Published("sac", "Pendulum-v1", -156.995, 88.714),
    Published("qrdqn", "Acrobot-v1", -69.135, 9.967),
)


def reached(published: Published) -> tuple[float, float]:
    """Mean and standard deviation over the 100 fresh episodes that ``main`` ends with, trained as long as the preset says."""
    arguments = ["-P", f"env={published.env_id}", "-P", f"algo={published.algo}"]
    with tempfile.TemporaryDirectory() as folder:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {"PATH": path, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
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
            command, cwd=folder, env=os.environ | own, capture_output=True, check=False, text=True
        )
    found = re.search(r"Mean reward: (\S+) \+/- (\S+)", done.stdout)
    if done.returncode != 0 or found is None:
        raise click.ClickException(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}"
        )
    return float(found[1]), float(found[2])


@click.command()
def main() -> None:
    """Train with each preset and print what came out beside what was published."""
    click.echo(
        f"{report.machine()}\nmlflow run . -e main, seed 0, 100 fresh episodes of the champion\n"
    )
    click.echo(
        report.header("preset", "here", "rl_zoo3", "within one standard deviation, or better")
    )
    for published in ZOO:
        mean, std = reached(published)
        met = mean >= published.mean - published.std
        texts = (
            f"{mean:.1f} ± {std:.1f}",
            f"{published.mean:.1f} ± {published.std:.1f}",
            report.verdict(met=met),
        )
        click.echo(report.row(f"{published.algo} {published.env_id}", *texts))


if __name__ == "__main__":
    main()
