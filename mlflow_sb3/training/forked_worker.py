"""A second process for a part of the work: a copy of this one, with all that is loaded here, on a core that is idle."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from mlflow_sb3.runs import signals

Answer = TypeVar("Answer")

PATIENCE = 60.0
"""Seconds without an answer and without any CPU time, after which a companion is taken for stuck."""
_STUCK_IN_COPIES = frozenset({"grpc", "jax", "tensorflow"})
"""Packages that wait forever in a copy of their process, for threads that a copy does not have."""
_SLICE = 0.5
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class WorkerLostError(Exception):
    """The companion did not answer: it failed, died or was stuck."""


class ForkedWorker(Generic[Answer]):
    """Does one task after the other: ``send`` it, go on, and ``receive`` the answer.

    It ends with ``close``, and with the process that it is a copy of, however that ends. Signals that ask to stop are not its own.
    """

    def __init__(self, work: Callable[[Any], Answer], *, patience: float = PATIENCE) -> None:
        """Copy this process; see ``is_possible``.

        Args:
            work: Takes a task and returns the answer, both picklable, with whatever it refers to as it is now.
            patience: Seconds; see ``PATIENCE``.

        Raises:
            OSError: There is no room for another process.
        """
        context = multiprocessing.get_context("fork")
        self._patience = patience
        self._connection, theirs = context.Pipe()
        self._writer = threading.Thread()
        self._process = context.Process(
            target=_serve, args=[theirs, self._connection, work, os.getpid()], name="companion"
        )
        with warnings.catch_warnings():  # Python 3.12 warns of forks beside threads: none of ours is needed there, see _STUCK_IN_COPIES
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        theirs.close()

    def send(self, task: Any) -> None:
        """Hand a task over, one at a time, and do not wait until it is taken; ``receive`` says if it never is."""
        self._writer = threading.Thread(
            target=self._write, args=[task], name="to the companion", daemon=True
        )
        self._writer.start()

    def is_ready(self) -> bool:
        """Whether ``receive`` would not wait."""
        return self._connection.poll()

    def receive(self, *, meanwhile: Callable[[], object] = lambda: None) -> Answer:
        """Wait for the answer.

        Args:
            meanwhile: Called twice a second; may raise.

        Raises:
            LostError: There will be none; the task can be done here.
        """
        worked, since = self._cpu_time(), time.monotonic()
        while not self._connection.poll(_SLICE):
            meanwhile()
            if (now := self._cpu_time()) != worked:
                worked, since = now, time.monotonic()
            elif time.monotonic() - since > self._patience:
                raise WorkerLostError(f"no CPU time in {self._patience} s")
        try:
            answer: Answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerLostError("it failed or died") from error
        return answer

    def close(self) -> None:
        """End it, whatever it is doing. What it has started is not told."""
        self._process.kill()
        self._process.join()
        with socket.socket(fileno=os.dup(self._connection.fileno())) as line, suppress(OSError):
            line.shutdown(
                socket.SHUT_RDWR
            )  # ends a task that is being handed over, whoever else has the other end
        if self._writer.ident:
            self._writer.join()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, task: Any) -> None:
        with suppress(OSError):
            self._connection.send(task)

    def _cpu_time(self) -> list[str]:
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return []
        return stat[stat.rindex(")") + 2 :].split()[11:13]


def is_possible() -> bool:
    """Whether a copy of this process can work, and on a core of its own."""
    if sys.platform != "linux" or multiprocessing.current_process().daemon:
        return False
    return len(os.sched_getaffinity(0)) > 1 and _STUCK_IN_COPIES.isdisjoint(sys.modules)


def _serve(
    connection: Connection, theirs: Connection, work: Callable[[Any], Any], parent: int
) -> None:
    """What a companion does; an error ends it, and the task is done again where the error can be seen."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    theirs.close()
    for number in signals.SIGNALS:
        signal.signal(
            number, lambda *_: None
        )  # not SIG_IGN, which programs that are started here would keep
    try:
        while True:
            connection.send(work(connection.recv()))
    except Exception:  # noqa: BLE001 of any kind
        return
