"""Measure the step `train`, and a plain `DQN.learn` with an EvalCallback.

The plain program uses PyTorch's default number of threads. Also measure snapshots and the journal.
"""

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
from mlflow_sb3.tracking.delivery_thread import DeliveryThread
from mlflow_sb3.tracking.metric_writer import MetricWriter
from mlflow_sb3.tracking.run_logger import RunLogger
from mlflow_sb3.tracking.snapshot_uploader import SNAPSHOT_DIR
from mlflow_sb3.training import loop
from mlflow_sb3.training.snapshot_writer import SnapshotWriter


class TimedDeliveryThread(DeliveryThread):
    """Measures the CPU time of the thread."""

    cpu_seconds = 0.0

    def _work(self) -> None:
        super()._work()
        self.cpu_seconds = time.thread_time()


class TimedRunLogger(RunLogger):
    """Measures the CPU time of its delivery thread."""

    def __init__(self, run_id: str, folder: Path) -> None:
        super().__init__(run_id, folder)
        self._delivery_thread = self.timed_thread = TimedDeliveryThread(self._sender)


def measure_recovery(timesteps: int) -> list[str]:
    """Train in this process. Return table rows with the cost of snapshots and the journal."""
    with tempfile.TemporaryDirectory() as folder:
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.set_experiment(
            experiment_id=mlflow.create_experiment(
                "training", artifact_location=f"{folder}/artifacts"
            )
        )
        hyperparams = zoo_presets.find_preset("dqn", "CartPole-v1").hyperparams
        with (
            mlflow.start_run() as run,
            TimedRunLogger(run.info.run_id, Path(folder, "run")) as run_logger,
        ):
            writer = SnapshotWriter(
                Path(folder, "run", SNAPSHOT_DIR),
                get_extra=run_logger.get_metric_state,
                on_written=run_logger.offer_snapshot,
            )
            start = time.perf_counter()
            loop.train(
                env_spec.compose_spec("CartPole-v1"),
                "dqn",
                timesteps=timesteps,
                hyperparams=hyperparams,
                writers=[MetricWriter(run_logger)],
                snapshot_writer=writer,
            )
            wall = time.perf_counter() - start
    costs = {
        f"{writer.count} snapshots, in the training thread": writer.seconds,
        "journal, in the training thread": run_logger.total_call_seconds,
        "delivery, CPU time of its thread": run_logger.timed_thread.cpu_seconds,
    }
    return [
        report.row(name, f"{seconds:.3f}", f"{100 * seconds / wall:.2f} %")
        for name, seconds in costs.items()
    ] + [report.row("longest call into the journal", f"{run_logger.longest_call_seconds:.4f}", "")]


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
    """Compare the step train with a plain DQN.learn, each as a process of its own.

    Print the times, the ratios, and the cost of snapshots and of the journal.
    """
    step_command = [sys.executable, "-m", "steps.train", "--timesteps", str(timesteps), "--seed"]
    plain_command = [
        sys.executable,
        "-m",
        "benchmarks.naive",
        "--timesteps",
        str(timesteps),
        "--seed",
    ]
    measured = report.processes(
        pairs,
        {
            "train step": lambda seed: [*step_command, str(seed)],
            "plain DQN.learn": lambda seed: [*plain_command, str(seed)],
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
    click.echo("\n" + report.header("one training with seed 0", "s", "share"))
    click.echo("\n".join(measure_recovery(timesteps)))


if __name__ == "__main__":
    main()
