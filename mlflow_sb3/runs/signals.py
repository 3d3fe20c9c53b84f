"""Handle SIGTERM and SIGINT: stop at once, or at a point where no work is lost.

A second signal after ``REPEAT_WINDOW`` ends the process immediately, without any clean-up.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
PARENT_EXIT_SIGNAL = signal.SIGUSR1
"""Signal that a process sends to itself after its parent has exited.

It counts as SIGTERM, but never as a second signal: if a container manager sends SIGTERM to all
processes, ``mlflow run`` exits at once, while its step still writes a snapshot. The exit of
``mlflow run`` must not end the step.
"""
INTERRUPTED_TAG = "mlflow_sb3.interrupted"
"""Tag of a run: name of the signal that stopped it.

After Ctrl-C, ``mlflow run`` of MLflow 3.17 sets the status of such a run to FAILED.
"""
REPEAT_WINDOW = 3.0
"""Seconds after the first signal in which further signals are ignored.

After Ctrl-C, a terminal sends SIGINT to all processes, and a parent may send SIGTERM to its
child as well. Both belong to one request.
"""


class Interrupted(KeyboardInterrupt):
    """A signal asked this process to stop.

    It is a ``KeyboardInterrupt``, because MLflow then also stops the run that it waits for.

    Args:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number).name
        super().__init__(f"interrupted by {self.signal}")
        self.exit_code = 128 + number


class StopRequest:
    """Record whether a signal asked this process to stop.

    Attributes:
        requested: Number of the signal, or None.
    """

    def __init__(self) -> None:
        self.requested: int | None = None

    def raise_if_requested(self) -> None:
        """Raise ``Interrupted`` if a signal asked this process to stop.

        Raises:
            Interrupted: A signal arrived.
        """
        if self.requested is not None:
            raise Interrupted(self.requested)


@contextmanager
def defer_signals() -> Iterator[StopRequest]:
    """Only record a signal inside the context.

    The caller calls ``raise_if_requested`` at points where no work is lost.
    """
    stop = StopRequest()
    with _handle_signals(stop, lambda: None):
        yield stop


@contextmanager
def raise_on_signal(*, before: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Raise ``Interrupted`` in the main thread as soon as a signal arrives.

    Args:
        before: Called before the exception is raised.
    """
    stop = StopRequest()

    def react() -> None:
        before()
        stop.raise_if_requested()

    with _handle_signals(stop, react):
        yield


@contextmanager
def prefer_interrupt() -> Iterator[None]:
    """Raise ``Interrupted`` instead of an error that occurred while it was handled.

    For example, the clean-up after a signal may fail because the server is down. The signal is
    still the reason why the step stopped.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, Interrupted):
            cause = cause.__context__
        if cause is None:
            raise
        raise cause from None


@contextmanager
def _handle_signals(stop: StopRequest, react: Callable[[], None]) -> Iterator[None]:
    """Call ``react`` at the first signal, and end the process at the second one.

    Only the main thread can handle signals. In other threads, the context does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first_time = 0.0

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal first_time
        if stop.requested is None:
            stop.requested = signal.SIGTERM if number == PARENT_EXIT_SIGNAL else number
            first_time = time.monotonic()
            react()
        elif number != PARENT_EXIT_SIGNAL and time.monotonic() - first_time > REPEAT_WINDOW:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    numbers = (*STOP_SIGNALS, PARENT_EXIT_SIGNAL)
    old_handlers = [(number, signal.signal(number, handle)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in old_handlers:
            signal.signal(number, handler)
