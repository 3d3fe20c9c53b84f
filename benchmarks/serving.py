"""What does `mlflow models serve` need: the size of its environment, its memory, the time until it answers?"""

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
from benchmarks.images import ask

REQUEST = b'{"inputs": [[0.01, -0.02, 0.03, 0.04]]}'


@dataclass(frozen=True)
class Start:
    """What one start of a server took."""

    seconds: float
    """Until the first action."""
    megabytes: float
    """Resident, of all its processes together."""


def environment(requirements: Path, folder: Path) -> Path:
    """A virtual environment with what a model requires; returns its Python."""
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


def size(folder: Path) -> float:
    """Megabytes of the files of a folder."""
    return (
        sum(
            path.stat().st_size
            for path in folder.rglob("*")
            if path.is_file() and not path.is_symlink()
        )
        / 1e6
    )


def resident(group: int) -> float:
    """Megabytes of memory of the processes of a group, as Linux has it."""
    pages = [
        int((entry / "statm").read_text().split()[1])
        for entry in Path("/proc").glob("[0-9]*")
        if _group(int(entry.name)) == group
    ]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _group(process: int) -> int | None:
    try:
        return os.getpgid(process)
    except ProcessLookupError:
        return None


def start(python: Path, model: Path) -> Start:
    """Start ``mlflow models serve``, ask until it answers, and end it."""
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
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        env=os.environ | {"PATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not _asked(f"http://127.0.0.1:{port}/invocations"):
            if process.poll() is not None:
                raise click.ClickException(f"{' '.join(command)} ended with {process.returncode}")
            time.sleep(0.05)
        return Start(time.perf_counter() - began, resident(process.pid))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _asked(url: str) -> bool:
    try:
        ask(url, REQUEST)
    except OSError:
        return False
    return True


@click.command()
@click.option("--repeats", default=5, show_default=True)
def main(repeats: int) -> None:
    """Start the server of our model and of a plain wrapper in turn; print the medians and their ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mlflow_sb3.save_model(agents.balancing(), folder / "ours")
        agents.save_plain(agents.balancing(), folder / "plain")
        python = environment(folder / "ours" / "requirements.txt", folder / "environment")
        starts: dict[str, Callable[[], Start]] = {
            "our model, its requirements": partial(start, python, folder / "ours"),
            "a plain wrapper, this environment": partial(
                start, Path(sys.executable), folder / "plain"
            ),
        }
        for first in starts.values():  # reads the files from the disk
            first()
        megabytes = size(folder / "environment")
        ours, plain = (measured := report.alternate(repeats, starts)).values()
    click.echo(
        f"{report.machine()}\nmlflow models serve, one worker, {repeats} starts each; the environment of our model has {megabytes:.0f} MB\n"
    )
    click.echo(report.header("what", "s until the first action", "MB resident"))
    for what, taken in measured.items():
        seconds, memory = (
            median(values)
            for values in ([one.seconds for one in taken], [one.megabytes for one in taken])
        )
        click.echo(report.row(what, f"{seconds:.1f}", f"{memory:.0f}"))
    click.echo("\n" + report.header("ratio", "median (range over the pairs)", "target", "verdict"))
    click.echo(
        report.row(
            "seconds",
            *report.compare(
                [one.seconds for one in ours], [one.seconds for one in plain], at_most=0.7
            ),
        )
    )
    click.echo(
        report.row(
            "memory",
            *report.compare(
                [one.megabytes for one in ours], [one.megabytes for one in plain], at_most=0.7
            ),
        )
    )


if __name__ == "__main__":
    main()
