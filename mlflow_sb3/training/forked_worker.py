"""A worker process that is forked from this process, to use an idle CPU core."""

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

Result = TypeVar("Result")

STALL_TIMEOUT = 60.0
"""Seconds without a result and without CPU time after which a worker counts as stuck."""
PROCESS_NAME = "forked-worker"
SENDER_NAME = "send-to-forked-worker"
"""Name of the thread that sends a task."""
_NOT_FORK_SAFE = frozenset({"grpc", "jax", "tensorflow"})
"""Packages that block forever after ``fork``, because they wait for threads of the parent."""
_POLL_INTERVAL = 0.5
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class WorkerLostError(Exception):
    """The worker process failed, was killed or is stuck."""


class ForkedWorker(Generic[Result]):
    """Run a function in a forked process: ``send`` a task, then ``receive`` its result.

    The process has all objects of this process at the time of the fork. It ends with ``close``,
    and with this process. It ignores SIGTERM and SIGINT, which this process handles.
    """

    def __init__(
        self, function: Callable[[Any], Result], *, stall_timeout: float = STALL_TIMEOUT
    ) -> None:
        """Fork this process. Call ``is_available`` first.

        Args:
            function: Maps a task to its result. Both must be picklable, the function need not be.
            stall_timeout: See ``STALL_TIMEOUT``.

        Raises:
            OSError: The system cannot start another process.
        """
        context = multiprocessing.get_context("fork")
        self._stall_timeout = stall_timeout
        self._connection, worker_connection = context.Pipe()
        self._sender = threading.Thread()
        self._process = context.Process(
            target=_serve,
            args=[worker_connection, self._connection, function, os.getpid()],
            name=PROCESS_NAME,
        )
        with warnings.catch_warnings():
            # Python 3.12 and later warn of a fork with threads; the worker needs none of them
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        worker_connection.close()

    def send(self, task: Any) -> None:
        """Send a task, without waiting until the worker reads it. Send one task at a time."""
        self._sender = threading.Thread(
            target=self._send, args=[task], name=SENDER_NAME, daemon=True
        )
        self._sender.start()

    def is_ready(self) -> bool:
        """Return whether a result has arrived, so that ``receive`` does not wait."""
        return self._connection.poll()

    def receive(self, *, while_waiting: Callable[[], object] = lambda: None) -> Result:
        """Wait for the result of the last task.

        Args:
            while_waiting: Called twice a second. It may raise.

        Raises:
            WorkerLostError: There will be no result. Run the task in this process instead.
        """
        cpu_time, last_progress = self._read_cpu_time(), time.monotonic()
        while not self._connection.poll(_POLL_INTERVAL):
            while_waiting()
            if (current := self._read_cpu_time()) != cpu_time:
                cpu_time, last_progress = current, time.monotonic()
            elif time.monotonic() - last_progress > self._stall_timeout:
                raise WorkerLostError(f"it used no CPU time for {self._stall_timeout} s")
        try:
            result: Result = self._connection.recv()
        except (EOFError, OSError) as error:
            raise WorkerLostError("it failed or was killed") from error
        return result

    def close(self) -> None:
        """Kill the worker process. Processes that it has started continue."""
        self._process.kill()
        self._process.join()
        # ends a pending send, even if another process still holds the other end of the pipe
        with socket.socket(fileno=os.dup(self._connection.fileno())) as pipe, suppress(OSError):
            pipe.shutdown(socket.SHUT_RDWR)
        if self._sender.ident:
            self._sender.join()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, task: Any) -> None:
        with suppress(OSError):  # receive reports a lost worker
            self._connection.send(task)

    def _read_cpu_time(self) -> list[str]:
        """Return the user and system time of the worker process; empty if it has ended."""
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return []
        return stat[stat.rindex(")") + 2 :].split()[11:13]


def is_available() -> bool:
    """Return whether a forked process can work, and has a CPU core of its own.

    It needs Linux. No worker is forked if a package is loaded that does not survive ``fork``.
    """
    if sys.platform != "linux" or multiprocessing.current_process().daemon:
        return False
    return len(os.sched_getaffinity(0)) > 1 and _NOT_FORK_SAFE.isdisjoint(sys.modules)


def _serve(
    connection: Connection,
    parent_connection: Connection,
    function: Callable[[Any], Any],
    parent: int,
) -> None:
    """Run tasks in the worker process until it is killed or an error occurs.

    The parent process repeats a failed task and reports its error.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    parent_connection.close()
    for number in signals.STOP_SIGNALS:
        # not SIG_IGN, which programs that the environments start would inherit
        signal.signal(number, lambda *_: None)
    try:
        while True:
            connection.send(function(connection.recv()))
    except Exception:  # noqa: BLE001 the parent repeats the task and shows any error
        return
