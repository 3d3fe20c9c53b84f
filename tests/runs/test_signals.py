from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from mlflow_sb3.runs import signals
from mlflow_sb3.runs.signals import Interrupted, StopRequest
from tests.processes import PROCESS_TIMEOUT

SLEEPING = """
import time
from mlflow_sb3 import interruption
interruption.TOGETHER = 0.2
with interruption.deferred() as stop:
    print("ready", flush=True)
    while stop.requested is None:
        time.sleep(0.01)
    print("asked", flush=True)
    time.sleep(3600)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_raised_at_once(number: int, code: int) -> None:
    with (
        signals.raise_on_signal(),
        pytest.raises(Interrupted, match=f"interrupted by {signal.Signals(number).name}") as caught,
    ):
        signal.raise_signal(number)

    assert caught.value.exit_code == code
    assert isinstance(caught.value, KeyboardInterrupt)


def test_a_deferred_signal_waits_for_who_obeys() -> None:
    with signals.defer_signals() as stop:
        stop.raise_if_requested()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested == signal.SIGTERM
        with pytest.raises(Interrupted, match="SIGTERM"):
            stop.raise_if_requested()


def test_a_deferred_signal_that_nobody_obeyed_is_over_with_the_work() -> None:
    with signals.defer_signals():
        os.kill(os.getpid(), signal.SIGTERM)


def test_handlers_are_as_they_were_afterwards() -> None:
    before = [signal.getsignal(number) for number in signals.STOP_SIGNALS]

    with signals.raise_on_signal(), signals.defer_signals():
        assert [signal.getsignal(number) for number in signals.STOP_SIGNALS] != before

    assert [signal.getsignal(number) for number in signals.STOP_SIGNALS] == before


def test_signals_that_come_together_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        signals, "REPEAT_WINDOW", PROCESS_TIMEOUT
    )  # however long this process is held in between
    with signals.defer_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)

    assert stop.requested == signal.SIGINT


def test_whoever_started_it_may_be_gone_while_it_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "REPEAT_WINDOW", 0.0)
    with signals.defer_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signals.PARENT_EXIT_SIGNAL)
    with signals.defer_signals() as orphan:
        os.kill(os.getpid(), signals.PARENT_EXIT_SIGNAL)

    assert (stop.requested, orphan.requested) == (signal.SIGINT, signal.SIGTERM)


def test_a_second_signal_ends_the_process() -> None:
    process = subprocess.Popen([sys.executable, "-c", SLEEPING], stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        assert process.stdout.readline() == b"asked\n"
        time.sleep(0.5)
        assert process.poll() is None
        process.terminate()
        process.wait(PROCESS_TIMEOUT)

    assert process.returncode == -signal.SIGTERM


def test_nobody_asked_to_stop() -> None:
    StopRequest().raise_if_requested()
