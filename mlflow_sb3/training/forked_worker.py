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
"""A worker counts as stuck if it returns nothing and uses no CPU time for this many seconds."""
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

    The worker gets a copy of all objects of the parent process. It ends when the parent calls
    ``close`` or exits. It ignores SIGTERM and SIGINT, which the parent handles.
    """

    def __init__(
        self, function: Callable[[Any], Result], *, stall_timeout: float = STALL_TIMEOUT
    ) -> None:
        """Fork this process. Call ``is_available`` first.

        Args:
            function: Returns the result of a task. The task and the result must be picklable. The
                function need not be.
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
            # Python 3.12 and later warn if a process with threads is forked. The worker does not
            # use these threads.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        worker_connection.close()

    def send(self, task: Any) -> None:
        """Send a task without waiting until the worker reads it.

        Call ``receive`` before you send the next task.
        """
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
            while_waiting: Called twice a second. If it raises an exception, the wait ends.

        Raises:
            WorkerLostError: The worker failed, was killed or is stuck. The caller can run the task
                in this process instead.
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
        """Kill the worker process. Processes that the worker has started continue."""
        self._process.kill()
        self._process.join()
        # Shut the pipe down to end a pending send. Closing it is not enough if another process
        # still has the other end open.
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
        """Return the user and system time of the worker process. Empty if it no longer exists.

        A killed worker exists, with constant times, until ``close`` joins it.
        """
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return []
        return stat[stat.rindex(")") + 2 :].split()[11:13]


def is_available() -> bool:
    """Return whether this process can be forked, and may use more than one CPU core.

    Forking needs Linux and a process that is not a daemon of ``multiprocessing``. It is not
    possible if a package is loaded that does not survive ``fork``.
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

    After an error, the worker ends and ``receive`` raises WorkerLostError in the parent process.
    The caller of ``receive`` repeats the task there, and then sees the error.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    parent_connection.close()
    for number in signals.STOP_SIGNALS:
        # Use a handler instead of SIG_IGN: programs that an environment starts inherit SIG_IGN.
        signal.signal(number, lambda *_: None)
    try:
        while True:
            connection.send(function(connection.recv()))
    except Exception:  # noqa: BLE001 the caller of receive repeats the task and sees the error
        return
