"""Measure the environment, the memory and the start-up time of `mlflow models serve`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import click

import mlflow_sb3
from benchmarks import agents, report
from benchmarks.images import send_request

REQUEST = b'{"inputs": [[0.01, -0.02, 0.03, 0.04]]}'


@dataclass(frozen=True)
class ServerStart:
    """Duration and memory of one start of a server."""

    seconds: float
    """Time until the first action."""
    megabytes: float
    """Resident memory of all processes of the server."""


def create_environment(requirements: Path, folder: Path) -> Path:
    """Create a virtual environment with the requirements of a model. Return its Python."""
    python = folder / "bin" / "python"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    install = [
        *uv,
        "pip",
        "install",
        "--quiet",
        "--compile-bytecode",
        "--python",
        str(python),
        "-r",
        str(requirements),
    ]
    subprocess.run(install, check=True)
    return python


def folder_size(folder: Path) -> float:
    """Return the size of the files in a folder in megabytes."""
    return (
        sum(
            path.stat().st_size
            for path in folder.rglob("*")
            if path.is_file() and not path.is_symlink()
        )
        / 1e6
    )


def resident_memory(group: int) -> float:
    """Return the resident memory of a process group in megabytes. This reads Linux's /proc."""
    pages = [
        int((entry / "statm").read_text().split()[1])
        for entry in Path("/proc").glob("[0-9]*")
        if _group_id(int(entry.name)) == group
    ]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _group_id(process: int) -> int | None:
    try:
        return os.getpgid(process)
    except ProcessLookupError:
        return None


def start_server(python: Path, model: Path) -> ServerStart:
    """Start ``mlflow models serve``, send requests until it answers, and end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(python),
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        str(model),
        "--env-manager",
        "local",
        "-p",
        str(port),
    ]
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    start = time.perf_counter()
    process = subprocess.Popen(
        command,
        env=os.environ | {"PATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not _is_ready(f"http://127.0.0.1:{port}/invocations"):
            if process.poll() is not None:
                raise click.ClickException(
                    f"{' '.join(command)} exited with code {process.returncode}"
                )
            time.sleep(0.05)
        return ServerStart(time.perf_counter() - start, resident_memory(process.pid))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _is_ready(url: str) -> bool:
    try:
        send_request(url, REQUEST)
    except OSError:
        return False
    return True


@click.command()
@click.option("--repeats", default=5, show_default=True, help="Starts of each server.")
def main(repeats: int) -> None:
    """Start a server of each model in turn. Print the medians and their ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mlflow_sb3.save_model(agents.create_agent(), folder / "project")
        agents.save_plain(agents.create_agent(), folder / "plain")
        python = create_environment(folder / "project" / "requirements.txt", folder / "environment")
        starts: dict[str, Callable[[], ServerStart]] = {
            "mlflow-sb3 model, its requirements": partial(start_server, python, folder / "project"),
            "plain wrapper, this environment": partial(
                start_server, Path(sys.executable), folder / "plain"
            ),
        }
        # The first start reads the files from the disk and is not measured.
        for start_once in starts.values():
            start_once()
        megabytes = folder_size(folder / "environment")
        measured = report.alternate(repeats, starts)
        project, plain = measured.values()
    click.echo(
        f"{report.machine()}\nmlflow models serve, one worker, {repeats} starts each. "
        f"The environment of the mlflow-sb3 model has {megabytes:.0f} MB.\n"
    )
    click.echo(report.header("what", "s until the first action", "MB resident"))
    for name, times in measured.items():
        seconds = median([start.seconds for start in times])
        memory = median([start.megabytes for start in times])
        click.echo(report.row(name, f"{seconds:.1f}", f"{memory:.0f}"))
    click.echo("\n" + report.header("ratio", "median (range over the pairs)", "target", "verdict"))
    click.echo(
        report.row(
            "seconds",
            *report.compare(
                [start.seconds for start in project],
                [start.seconds for start in plain],
                at_most=0.7,
            ),
        )
    )
    click.echo(
        report.row(
            "memory",
            *report.compare(
                [start.megabytes for start in project],
                [start.megabytes for start in plain],
                at_most=0.7,
            ),
        )
    )


if __name__ == "__main__":
    main()
