"""Measure `PPO.learn` with and without `MlflowCallback`, on SQLite and behind a slow network."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import mlflow
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

import mlflow_sb3
from benchmarks import report
from deploy.server import process
from tests.faults.proxy import Proxy

ROOT = Path(__file__).parents[1]
MAX_RATIO = 1.03


@dataclass(frozen=True)
class LearnTime:
    """Wall time, and CPU time of this process with all its threads, in seconds."""

    wall: float
    cpu: float


def learn(timesteps: int, make_callback: Callable[[], BaseCallback | None]) -> LearnTime:
    """Measure `learn`, with everything that the callback does at its start and its end."""
    model = PPO("MlpPolicy", "CartPole-v1", seed=0, device="cpu")
    callback = make_callback()
    wall, cpu = time.perf_counter(), time.process_time()
    model.learn(timesteps, callback=callback)
    return LearnTime(time.perf_counter() - wall, time.process_time() - cpu)


def measure(title: str, uri: str, pairs: int, timesteps: int) -> None:
    """Print a table for a tracking server."""
    mlflow.set_tracking_uri(uri)
    make_callback = partial(mlflow_sb3.MlflowCallback, log_model=False)
    learn(4096, make_callback)  # create the experiment, import everything
    results = report.alternate(
        pairs,
        {
            "with": lambda: learn(timesteps, make_callback),
            "without": lambda: learn(timesteps, lambda: None),
        },
    )
    for kind in ("wall", "cpu"):
        logged, bare = ([getattr(one, kind) for one in results[key]] for key in ("with", "without"))
        click.echo(
            report.row(title, kind, *report.compare(logged, bare, at_most=MAX_RATIO))
            + f" {sorted(bare)[pairs // 2]:.1f} s |"
        )


@click.command()
@click.option("--pairs", default=5, show_default=True, help="Repetitions.")
@click.option("--timesteps", default=100_000, show_default=True, help="Steps on SQLite.")
@click.option("--slow-timesteps", default=400_000, show_default=True, help="Steps with a server.")
@click.option("--latency", default=2.0, show_default=True, help="Seconds before each answer.")
def main(pairs: int, timesteps: int, slow_timesteps: int, latency: float) -> None:
    """Compare `PPO.learn` with the callback, without evaluations and videos, and without it."""
    torch.set_num_threads(1)
    click.echo(report.machine())
    click.echo(
        f"PPO on CartPole-v1, {timesteps} steps on SQLite, {slow_timesteps} steps with a server; "
        f"median of {pairs} pairs\n"
    )
    click.echo(report.header("tracking", "time", "with / without", "target", "verdict", "without"))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_STATE_HOME"] = folder
        measure("SQLite", f"sqlite:///{folder}/mlflow.db", pairs, timesteps)
        port = process.find_free_port()
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{folder}/server.db"]
        command += ["--artifacts-destination", f"{folder}/served"]
        with (
            process.run_server(
                command,
                ready=lambda: process.is_reachable(f"http://127.0.0.1:{port}/health"),
                log=Path(folder, "server.txt"),
                variables=os.environ,
            ),
            Proxy(port).running() as proxy,
        ):
            proxy.delay = latency
            title = f"server, {latency:g} s of latency"
            measure(title, f"http://127.0.0.1:{proxy.port}", pairs, slow_timesteps)


if __name__ == "__main__":
    main()
