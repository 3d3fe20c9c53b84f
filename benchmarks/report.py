"""Run measurements in turn and format the results as Markdown tables."""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from pathlib import Path
from statistics import median
from typing import TypeVar

import click

FOLDER = Path(__file__).parent
PAUSE = 0.5
"""Seconds to wait before each measurement."""
PACKAGES = ("mlflow", "stable-baselines3", "torch", "onnxruntime", "gymnasium", "numpy")


def machine() -> str:
    """Return processor, cores, load and package versions in one line.

    PyTorch's threads wait actively. Other load on the machine slows SB3 more than this project.
    """
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")),
        platform.processor(),
    )
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    load = f"load {os.getloadavg()[0]:.1f}"
    return (
        f"{model}, {os.cpu_count()} cores, {load}, Python {platform.python_version()}, {versions}\n"
    )


Result = TypeVar("Result")


@dataclass(frozen=True)
class ProcessTime:
    """Wall time and CPU time of a process with all its children, in seconds."""

    wall: float
    cpu: float


def process(command: Sequence[str]) -> ProcessTime:
    """Run a command in an empty folder with a new store, and with the modules of the project."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        variables = {
            "PATH": path,
            "PYTHONPATH": str(FOLDER.parent),
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        }
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")
        }
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        done = subprocess.run(
            command,
            cwd=folder,
            env=inherited | variables,
            capture_output=True,
            check=False,
            text=True,
        )
        wall = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise click.ClickException(
            f"{' '.join(command)} exited with code {done.returncode}:\n{done.stderr[-2000:]}"
        )
    return ProcessTime(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def processes(
    pairs: int, commands: dict[str, Callable[[int], Sequence[str]]]
) -> dict[str, list[ProcessTime]]:
    """Run the commands in turn, with the number of the pair as seed, and print each time.

    Every pair has its own seed, because the duration depends on the seed. A better agent plays
    longer evaluation episodes.
    """
    results: dict[str, list[ProcessTime]] = {name: [] for name in commands}
    for seed in range(pairs):
        for name, command in commands.items():
            taken = process(command(seed))
            results[name].append(taken)
            click.echo(f"seed {seed}, {name}: {taken.wall:.1f} s wall, {taken.cpu:.1f} s CPU")
    return results


def alternate(repeats: int, measured: dict[str, Callable[[], Result]]) -> dict[str, list[Result]]:
    """Measure in the order A, B, A, B. A change in the speed of the machine then affects all alike.

    Wait before each measurement, because PyTorch's threads wait actively for a while after a call.
    """
    results: dict[str, list[Result]] = {name: [] for name in measured}
    for _ in range(repeats):
        for name, measure in measured.items():
            time.sleep(PAUSE)
            results[name].append(measure())
    return results


def seconds(call: Callable[[], object]) -> float:
    """Return the wall time of a call in seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(
    project: list[float], reference: list[float], *, at_most: float
) -> tuple[str, str, str]:
    """Return the ratio of the medians with the range over the pairs, the target and the verdict."""
    ratio = median(project) / median(reference)
    pairs = [a / b for a, b in zip(project, reference, strict=True)]
    return (
        f"{ratio:.3f} ({min(pairs):.3f} to {max(pairs):.3f})",
        f"at most {at_most:.3g}",
        verdict(met=ratio <= at_most),
    )


def verdict(*, met: bool) -> str:
    """Return the verdict on a target as Markdown."""
    return "met" if met else "**missed**"


def header(*names: object) -> str:
    """Return the first two lines of a Markdown table."""
    return f"{row(*names)}\n{row(*['---'] * len(names))}"


def row(*cells: object) -> str:
    """Return one line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def spawn_context() -> SpawnContext:
    """Return the start method of processes that inherit no state, so that trainings start alike."""
    return multiprocessing.get_context("spawn")
