"""Servers as processes, which end with the context that started them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import click

from mlflow_sb3.runs import signals

_MORTAL = [] if shutil.which("setpriv") is None else ["setpriv", "--pdeathsig", "TERM", "--"]
"""Makes a process end with the one that started it, should that be killed; Linux has it."""
PATIENCE = 300.0
"""Seconds that a server may take to start on a machine that has much else to do."""


@contextmanager
def serving(
    command: Sequence[str],
    *,
    ready: Callable[[], bool],
    log: Path,
    variables: Mapping[str, str],
    user: str | None = None,
    end: signal.Signals = signal.SIGKILL,
) -> Iterator[None]:
    """Run a server from the moment that it answers until the context ends, with all its children.

    Args:
        command: What to start, in a session of its own: Ctrl-C comes here first.
        ready: Whether it answers.
        log: File that takes its output; its folder becomes the working folder.
        variables: All its environment variables.
        user: To run as, which root may choose.
        end: Signal that ends it.

    Raises:
        click.ClickException: It ended before it was ready.
    """
    with log.open("w") as output, ExitStack() as stack:
        log.chmod(0o600)
        with (
            signals.defer_signals() as stop
        ):  # who stops before the process is known here leaves it behind
            process = subprocess.Popen(
                [*_MORTAL, *command],
                cwd=log.parent,
                env=dict(variables),
                stdout=output,
                stderr=output,
                start_new_session=True,
                user=user,
            )
            stack.callback(_end, process, end)
        if stop.requested is not None:
            signal.raise_signal(stop.requested)
        _wait(process, ready, log)
        yield


def _end(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it ended by itself
        os.killpg(process.pid, number)
    process.wait()


def _wait(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace").strip().splitlines() or ["nothing"]
            raise click.ClickException(
                f"{log.stem} did not start; its last words are {said[-1]!r}, and {log} has them all."
            )
        time.sleep(0.1)


def answers(url: str) -> bool:
    """Whether a server answers, and not with an error."""
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 the address is ours
            return True
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        pass
    return False


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
