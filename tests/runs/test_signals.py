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
from mlflow_sb3.runs import signals
signals.REPEAT_WINDOW = 0.2
with signals.defer_signals() as stop:
    print("ready", flush=True)
    while stop.requested is None:
        time.sleep(0.01)
    print("requested", flush=True)
    time.sleep(3600)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_raised_at_once(number: int, code: int) -> None:
    name = signal.Signals(number).name
    with (
        signals.raise_on_signal(),
        pytest.raises(Interrupted, match=f"interrupted by {name}") as raised,
    ):
        signal.raise_signal(number)

    assert raised.value.exit_code == code
    assert isinstance(raised.value, KeyboardInterrupt)


def test_before_is_called_before_the_signal_is_raised() -> None:
    calls: list[str] = []

    with (
        pytest.raises(Interrupted, match="SIGTERM"),
        signals.raise_on_signal(before=lambda: calls.append("before")),
    ):
        signal.raise_signal(signal.SIGTERM)

    assert calls == ["before"]


def test_a_deferred_signal_is_raised_at_the_next_check() -> None:
    with signals.defer_signals() as stop:
        stop.raise_if_requested()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested == signal.SIGTERM
        with pytest.raises(Interrupted, match="SIGTERM"):
            stop.raise_if_requested()


def test_a_deferred_signal_without_a_check_has_no_effect() -> None:
    with signals.defer_signals():
        os.kill(os.getpid(), signal.SIGTERM)


def test_nothing_is_raised_without_a_signal() -> None:
    StopRequest().raise_if_requested()


def test_the_old_handlers_are_restored() -> None:
    before = [signal.getsignal(number) for number in signals.STOP_SIGNALS]

    with signals.raise_on_signal(), signals.defer_signals():
        assert [signal.getsignal(number) for number in signals.STOP_SIGNALS] != before

    assert [signal.getsignal(number) for number in signals.STOP_SIGNALS] == before


def test_signals_within_the_repeat_window_count_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "REPEAT_WINDOW", PROCESS_TIMEOUT)
    with signals.defer_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)

    assert stop.requested == signal.SIGINT


def test_the_exit_of_the_parent_is_not_a_second_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "REPEAT_WINDOW", 0.0)
    with signals.defer_signals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signals.PARENT_EXIT_SIGNAL)

    assert stop.requested == signal.SIGINT


def test_the_exit_of_the_parent_counts_as_sigterm() -> None:
    with signals.defer_signals() as stop:
        os.kill(os.getpid(), signals.PARENT_EXIT_SIGNAL)

    assert stop.requested == signal.SIGTERM


def test_a_second_signal_ends_the_process() -> None:
    process = subprocess.Popen([sys.executable, "-c", SLEEPING], stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        assert process.stdout.readline() == b"requested\n"
        time.sleep(0.5)
        assert process.poll() is None
        process.terminate()
        process.wait(PROCESS_TIMEOUT)

    assert process.returncode == -signal.SIGTERM


def test_an_interrupt_is_preferred_to_an_error_of_its_clean_up() -> None:
    def stop_and_fail() -> None:
        try:
            raise Interrupted(signal.SIGTERM)
        finally:
            raise ConnectionError("the server is down")

    with pytest.raises(Interrupted, match="SIGTERM"), signals.prefer_interrupt():
        stop_and_fail()


def test_another_error_is_raised_as_it_is() -> None:
    with (
        pytest.raises(ConnectionError, match="the server is down"),
        signals.prefer_interrupt(),
    ):
        raise ConnectionError("the server is down")
