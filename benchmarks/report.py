"""What the benchmarks share: the machine, alternating measurements, Markdown rows."""

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
"""Seconds between two measurements."""
PACKAGES = ("mlflow", "stable-baselines3", "torch", "onnxruntime", "gymnasium", "numpy")


def machine() -> str:
    """Processor, cores, load and versions in one line: PyTorch's threads wait busily, so a loaded machine slows SB3 more than us."""
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


Measured = TypeVar("Measured")


@dataclass(frozen=True)
class Process:
    """Wall and CPU seconds of a process with all its children."""

    wall: float
    cpu: float


def process(command: Sequence[str]) -> Process:
    """Run a command in an empty working folder with a store of its own, from the project's root as the place of its modules."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {
            "PATH": path,
            "PYTHONPATH": str(FOLDER.parent),
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        }
        theirs = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        done = subprocess.run(
            command, cwd=folder, env=theirs | own, capture_output=True, check=False, text=True
        )
        wall = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise click.ClickException(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}"
        )
    return Process(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def processes(
    pairs: int, commands: dict[str, Callable[[int], Sequence[str]]]
) -> dict[str, list[Process]]:
    """Run every command in turn with the number of the pair as its seed, and print each time as it is known.

    One seed would not do: a better agent plays longer evaluation episodes, so that the time of a training hangs on its seed.
    """
    results: dict[str, list[Process]] = {name: [] for name in commands}
    for seed in range(pairs):
        for name, command in commands.items():
            results[name].append(process(command(seed)))
            click.echo(
                f"seed {seed}, {name}: {results[name][-1].wall:.1f} s wall, {results[name][-1].cpu:.1f} s CPU"
            )
    return results


def alternate(
    repeats: int, measured: dict[str, Callable[[], Measured]]
) -> dict[str, list[Measured]]:
    """Measure A, B, A, B, ...: a machine whose speed drifts slows all of them alike.

    A pause comes before each: PyTorch's threads wait busily for a while after the last call, which is not to slow what comes next.
    """
    results: dict[str, list[Measured]] = {name: [] for name in measured}
    for _ in range(repeats):
        for name, measure in measured.items():
            time.sleep(PAUSE)
            results[name].append(measure())
    return results


def seconds(call: Callable[[], object]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compare(ours: list[float], theirs: list[float], *, at_most: float) -> tuple[str, str, str]:
    """The ratio of the medians with the smallest and the largest of a pair, the target, and whether it is met."""
    ratio = median(ours) / median(theirs)
    pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
    return (
        f"{ratio:.3f} ({min(pairs):.3f} to {max(pairs):.3f})",
        f"at most {at_most:.3g}",
        verdict(met=ratio <= at_most),
    )


def verdict(*, met: bool) -> str:
    """A target is met or missed; there is nothing in between."""
    return "met" if met else "**missed**"


def header(*names: object) -> str:
    """First two lines of a Markdown table."""
    return f"{row(*names)}\n{row(*['---'] * len(names))}"


def row(*cells: object) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def fresh_processes() -> SpawnContext:
    """Processes that share nothing with this one, so that every training starts alike."""
    return multiprocessing.get_context("spawn")
