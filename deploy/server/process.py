"""Start server processes and end them when their context ends."""

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

_END_WITH_PARENT = (
    [] if shutil.which("setpriv") is None else ["setpriv", "--pdeathsig", "TERM", "--"]
)
"""Command prefix that makes Linux send SIGTERM to the server if this process is killed.

The prefix is empty on a machine without the program ``setpriv``.
"""
START_TIMEOUT = 300.0
"""Seconds that a server may take to start. A loaded machine needs minutes."""


@contextmanager
def run_server(
    command: Sequence[str],
    *,
    ready: Callable[[], bool],
    log: Path,
    variables: Mapping[str, str],
    user: str | None = None,
    end: signal.Signals = signal.SIGKILL,
) -> Iterator[None]:
    """Run a server until the context ends. Enter the context when the server is ready.

    The server runs in a session of its own, so that Ctrl-C reaches only this process. The end of
    the context ends all child processes of the server too.

    Args:
        command: Program and arguments.
        ready: Return True when the server accepts requests.
        log: File for the output of the server. Its folder is the working folder of the server.
        variables: All environment variables of the server.
        user: User that runs the server. Only root may set it.
        end: Signal that ends the server.

    Raises:
        click.ClickException: The server ended or timed out before it was ready.
    """
    with log.open("w") as output, ExitStack() as stack:
        log.chmod(0o600)
        # A signal between the start and the callback would leave the server running.
        with signals.defer_signals() as stop:
            process = subprocess.Popen(
                [*_END_WITH_PARENT, *command],
                cwd=log.parent,
                env=dict(variables),
                stdout=output,
                stderr=output,
                start_new_session=True,
                user=user,
            )
            stack.callback(_end_process_group, process, end)
        if stop.requested is not None:
            signal.raise_signal(stop.requested)
        _wait_until_ready(process, ready, log)
        yield


def _end_process_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # The server ended by itself.
        os.killpg(process.pid, number)
    process.wait()


def _wait_until_ready(
    process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path
) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
            raise click.ClickException(
                f"{log.stem} did not start. Its last line is {lines[-1]!r}. See {log} for the rest."
            )
        time.sleep(0.1)


def is_reachable(url: str) -> bool:
    """Return whether a GET request to a URL succeeds within five seconds."""
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 only called with http URLs
            return True
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        pass
    return False


def find_free_port() -> int:
    """Return a port of 127.0.0.1 that no process listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
