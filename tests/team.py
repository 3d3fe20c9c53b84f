"""Share one trial server between all workers of a test session."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import FileLock

from deploy.server.process import find_free_port
from deploy.server.trial import TrialServer
from tests import ROOT


@contextmanager
def shared(parent: Path) -> Iterator[TrialServer]:
    """Return the trial server of a folder.

    The first worker starts the server, and stops it when no other worker uses it. Each worker holds
    a shared lock until its session ends. The kernel releases the lock after a crash.
    """
    folder, lock = parent / "trial", FileLock(parent / "trial.lock")
    with (parent / "trial.users").open("w") as users, ExitStack() as stack:
        with lock:
            if not (folder / "server.json").exists():
                server = stack.enter_context(_start_server(folder))
                stack.callback(_stop_server, server, users, lock)
            fcntl.flock(users, fcntl.LOCK_SH)
        yield TrialServer.load(folder)


@contextmanager
def _start_server(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        sys.executable,
        "-m",
        "deploy.server.trial",
        "--folder",
        str(folder),
        "--port",
        str(find_free_port()),
    ]
    log = folder.parent / "trial.log"
    with (
        log.open("w") as output,
        subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output) as process,
    ):
        try:
            while not (folder / "server.json").exists() and process.poll() is None:
                time.sleep(0.1)
            assert process.poll() is None, log.read_text()
            yield process
        finally:
            process.terminate()


def _stop_server(server: subprocess.Popen[bytes], users: IO[str], lock: FileLock) -> None:
    """Wait for the other workers, and stop the server while holding the lock.

    The lock keeps a new worker from using a server that is about to stop.
    """
    while server.poll() is None:
        with lock, suppress(BlockingIOError):
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            server.terminate()
            server.wait()
        time.sleep(0.1)
