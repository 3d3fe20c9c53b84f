"""SIGTERM and SIGINT: obeyed at once, or as soon as nothing is cut short; a second one ends the process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
ORPHANED = signal.SIGUSR1
"""What a process sends to itself when those who started it are gone: as SIGTERM, but never a second one. Who stops a container or a service
sends SIGTERM to every process, and ``mlflow run``, which ends at once, is then gone while its steps make their snapshots."""
INTERRUPTED_TAG = "mlflow_sb3.interrupted"
"""Tag of a run: the signal that ended it. ``mlflow run`` of MLflow 3.17, when it gets Ctrl-C, calls such a run FAILED afterwards."""
TOGETHER = 3.0
"""Seconds within which signals count as one: a terminal sends SIGINT to every process, and whoever waits for one of them SIGTERM too, a
quarter of a second later, or more where a machine has much else to do."""


class Interrupted(KeyboardInterrupt):
    """A signal asked to stop. MLflow ends the run that it waits for when it sees a KeyboardInterrupt."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number).name
        super().__init__(f"interrupted by {self.signal}")
        self.exit_code = 128 + number


class Stop:
    """Whether to stop."""

    def __init__(self) -> None:
        self.requested: int | None = None
        """Number of the signal that asked for it."""

    def obey(self) -> None:
        """Stop, if it was asked for.

        Raises:
            Interrupted: It was.
        """
        if self.requested is not None:
            raise Interrupted(self.requested)


@contextmanager
def defer_signals() -> Iterator[Stop]:
    """Only write down that a signal came: who works calls ``stop.obey`` where nothing is cut short, and not when all is done."""
    stop = Stop()
    with _handled(stop, lambda: None):
        yield stop


@contextmanager
def raise_on_signal(*, before: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Raise ``Interrupted`` wherever the main thread is, and call ``before`` first."""
    stop = Stop()

    def react() -> None:
        before()
        stop.obey()

    with _handled(stop, react):
        yield


@contextmanager
def prefer_interrupt() -> Iterator[None]:
    """Raise ``Interrupted`` in place of an error that came while it was obeyed, as from a server that is away."""
    try:
        yield
    except Exception as error:
        found: BaseException | None = error
        while found is not None and not isinstance(found, Interrupted):
            found = found.__context__
        if found is None:
            raise
        raise found from None


@contextmanager
def _handled(stop: Stop, react: Callable[[], None]) -> Iterator[None]:
    """Handle the signals, which only the main thread of a process can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first = 0.0

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal first
        if stop.requested is None:
            stop.requested, first = (
                signal.SIGTERM if number == ORPHANED else number,
                time.monotonic(),
            )
            react()
        elif number != ORPHANED and time.monotonic() - first > TOGETHER:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    before = [(number, signal.signal(number, handle)) for number in (*SIGNALS, ORPHANED)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
