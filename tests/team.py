"""The trial server, started once for all workers of a test run."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock

from server.process import free_port
from server.trial import Trial

ROOT = Path(__file__).parents[1]


@contextmanager
def shared(parent: Path, worker: str) -> Iterator[Trial]:
    """The trial server in a folder: the first worker to come starts it, and ends it when no other needs it any more."""
    folder, mine = parent / "trial", parent / f"trial-used-by-{worker}"
    with ExitStack() as stack:
        with FileLock(parent / "trial.lock"):
            if not (folder / "server.json").exists():
                stack.enter_context(_started(folder))
                stack.callback(_wait, lambda: not any(parent.glob("trial-used-by-*")))
            mine.touch()
            stack.callback(mine.unlink)
        yield Trial.load(folder)


@contextmanager
def _started(folder: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "server.trial", "--folder", str(folder), "--port", str(free_port())]
    log = folder.parent / "trial.log"
    with log.open("w") as output, subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output) as process:
        try:
            _wait(lambda: (folder / "server.json").exists() or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield
        finally:
            process.terminate()


def _wait(over: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not over():
        assert time.monotonic() < deadline
        time.sleep(0.1)
