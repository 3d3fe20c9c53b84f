"""Measure a request with one image to `mlflow models serve`, as base64 and as numbers in JSON."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median

import click
import gymnasium
import numpy as np
from gymnasium import spaces
from stable_baselines3 import DQN

import mlflow_sb3
from benchmarks import report

SHAPE = (84, 84, 4)


class Frames(gymnasium.Env[np.ndarray, np.int64]):
    """Environment with observations of four grey frames, as in Atari. It cannot be played."""

    observation_space = spaces.Box(0, 255, SHAPE, np.uint8)
    action_space = spaces.Discrete(6)


@contextmanager
def serve_model(folder: Path) -> Iterator[str]:
    """Run ``mlflow models serve`` as a process. Yield the URL of its predictions."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        str(folder),
        "--env-manager",
        "local",
        "-p",
        url.rpartition(":")[2],
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        while not _is_reachable(f"{url}/ping"):
            if process.poll() is not None:
                raise click.ClickException(
                    f"{' '.join(command)} exited with code {process.returncode}"
                )
            time.sleep(0.5)
        yield f"{url}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _is_reachable(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def send_request(url: str, body: bytes) -> None:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        response.read()


@click.command()
@click.option("--repeats", default=200, show_default=True, help="Requests to each server.")
def main(repeats: int) -> None:
    """Send requests to two servers in turn. Print the medians and their ratio."""
    model = DQN("CnnPolicy", Frames(), buffer_size=1, device="cpu", seed=0)
    frame = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    bodies = {
        "base64": {
            "dataframe_records": [{"observation": base64.b64encode(frame.tobytes()).decode()}]
        },
        "numbers": {"inputs": [frame.tolist()]},
    }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mlflow_sb3.save_model(model, folder / "base64", image_input="base64")
        mlflow_sb3.save_model(model, folder / "numbers")
        calls = {
            name: partial(
                send_request,
                stack.enter_context(serve_model(folder / name)),
                json.dumps(body).encode(),
            )
            for name, body in bodies.items()
        }
        for call in calls.values():
            call()
        measured = report.alternate(
            repeats, {name: partial(report.seconds, call) for name, call in calls.items()}
        )
    click.echo(
        f"{report.machine()}\nOne request with one frame of {SHAPE}, mlflow models serve, "
        f"{repeats} pairs\n"
    )
    click.echo(report.header("what", "bytes", "ms per request"))
    for name, body in bodies.items():
        click.echo(report.row(name, len(json.dumps(body)), f"{1000 * median(measured[name]):.1f}"))
    click.echo("\n" + report.header("ratio", "median (range over the pairs)", "target", "verdict"))
    click.echo(
        report.row(
            "base64 to numbers",
            *report.compare(measured["base64"], measured["numbers"], at_most=0.25),
        )
    )


if __name__ == "__main__":
    main()
