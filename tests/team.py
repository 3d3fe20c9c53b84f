"""The trial server, started once for all workers of a test run."""

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
    """The trial server in a folder: the first worker to come starts it, and ends it when no other needs it any more.

    Who uses it shares a lock until their session ends, or until the kernel frees it, as after a crash.
    """
    folder, lock = parent / "trial", FileLock(parent / "trial.lock")
    with (parent / "trial.users").open("w") as users, ExitStack() as stack:
        with lock:
            if not (folder / "server.json").exists():
                server = stack.enter_context(_started(folder))
                stack.callback(_end, server, users, lock)
            fcntl.flock(users, fcntl.LOCK_SH)
        yield TrialServer.load(folder)


@contextmanager
def _started(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
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


def _end(server: subprocess.Popen[bytes], users: IO[str], lock: FileLock) -> None:
    """Wait for the others as long as they need it; inside the lock, so that nobody comes to a server that is about to end."""
    while server.poll() is None:
        with lock, suppress(BlockingIOError):
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            server.terminate()
            server.wait()
        time.sleep(0.1)
