"""What does the train step cost against bare `DQN.learn` with an EvalCallback at SB3's default threads? And what of it is survival?"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import click
import mlflow

from benchmarks import report
from mlflow_sb3.algorithms import zoo_presets
from mlflow_sb3.envs import env_spec
from mlflow_sb3.tracking.metric_writer import MetricWriter
from mlflow_sb3.tracking.run_logger import RunLogger
from mlflow_sb3.tracking.snapshot_uploader import SNAPSHOT_DIR
from mlflow_sb3.training import loop
from mlflow_sb3.training.snapshot_writer import SnapshotWriter


class Timed(RunLogger):
    """Knows how much CPU time the delivering thread took."""

    cpu = 0.0

    def _work(self) -> None:
        super()._work()
        self.cpu = time.thread_time()


def survive(timesteps: int) -> list[str]:
    """Train in this process with snapshots and the journal; rows of what they cost."""
    with tempfile.TemporaryDirectory() as folder:
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.set_experiment(
            experiment_id=mlflow.create_experiment(
                "training", artifact_location=f"{folder}/artifacts"
            )
        )
        hyperparams = zoo_presets.find_preset("dqn", "CartPole-v1").hyperparams
        with mlflow.start_run() as run, Timed(run.info.run_id, Path(folder, "run")) as tracker:
            shelf = SnapshotWriter(
                Path(folder, "run", SNAPSHOT_DIR), more=tracker.state, on_published=tracker.snapshot
            )
            start = time.perf_counter()
            loop.train(
                env_spec.compose_spec("CartPole-v1"),
                "dqn",
                timesteps=timesteps,
                hyperparams=hyperparams,
                writers=[MetricWriter(tracker)],
                shelf=shelf,
            )
            wall = time.perf_counter() - start
    costs = {
        f"{shelf.taken} snapshots, in the training thread": shelf.seconds,
        "the journal, in the training thread": tracker.seconds,
        "delivering, CPU of a thread of its own": tracker.cpu,
    }
    return [
        report.row(name, f"{seconds:.3f}", f"{100 * seconds / wall:.2f} %")
        for name, seconds in costs.items()
    ] + [report.row("the longest call into the journal", f"{tracker.longest:.4f}", "")]


@click.command()
@click.option("--pairs", default=3, show_default=True)
@click.option(
    "--timesteps",
    default=50_000,
    show_default=True,
    type=click.IntRange(min=2500),
    help="At least one evaluation.",
)
def main(pairs: int, timesteps: int) -> None:
    """Run both as processes in turn; print wall and CPU time, the ratios, and what snapshots and journal take of it."""
    ours = [sys.executable, "-m", "steps.train", "--timesteps", str(timesteps), "--seed"]
    bare = [sys.executable, "-m", "benchmarks.naive", "--timesteps", str(timesteps), "--seed"]
    measured = report.processes(
        pairs,
        {
            "train step": lambda seed: [*ours, str(seed)],
            "bare DQN.learn": lambda seed: [*bare, str(seed)],
        },
    )
    step, learn = measured.values()
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
            *report.compare([run.wall for run in step], [run.wall for run in learn], at_most=1.05),
        )
    )
    click.echo(
        report.row(
            "CPU time",
            *report.compare([run.cpu for run in step], [run.cpu for run in learn], at_most=0.65),
        )
    )
    click.echo("\n" + report.header("one training of seed 0", "s", "of its time"))
    click.echo("\n".join(survive(timesteps)))


if __name__ == "__main__":
    main()
