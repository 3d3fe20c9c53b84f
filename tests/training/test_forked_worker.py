from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from mlflow_sb3.training import forked_worker
from mlflow_sb3.training.forked_worker import ForkedWorker, WorkerLostError
from tests.processes import children, companions, is_over, until

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="there are companions on Linux alone"
)

ORPHAN = """
import sys, time
from mlflow_sb3.training.forked_worker import Companion

def work(task):
    print("at it", flush=True)
    time.sleep(3600)

beside = Companion(work)
beside.send("anything")
time.sleep(3600)
"""


def double(task: int) -> int:
    return 2 * task


def writers() -> list[threading.Thread]:
    """The threads of this process that hand tasks over."""
    return [thread for thread in threading.enumerate() if thread.name == "to the companion"]


def test_it_does_one_task_after_the_other() -> None:
    with ForkedWorker(double) as beside:
        answers = []
        for task in (1, 2):
            beside.send(task)
            answers.append(beside.receive())

    assert answers == [2, 4]


def test_it_knows_what_was_here_when_it_began_and_changes_nothing_here() -> None:
    seen: list[Any] = ["before"]

    def work(task: str) -> list[str]:
        seen.append(task)
        return seen

    with ForkedWorker(work) as beside:
        beside.send("there")
        answer = beside.receive()

    assert answer == ["before", "there"]
    assert seen == ["before"]


@pytest.mark.parametrize(
    "work",
    [lambda task: 1 / task, lambda task: os.kill(os.getpid(), signal.SIGKILL)],
    ids=["fails", "dies"],
)  # noqa: ARG005
def test_one_that_fails_or_dies_is_lost_and_stays_so(work: Any) -> None:
    with ForkedWorker(work) as beside:
        for _ in range(2):
            beside.send(0)
            with pytest.raises(WorkerLostError, match="it failed or died"):
                beside.receive()


def test_one_that_stands_still_is_lost_and_one_that_works_is_waited_for() -> None:
    def work(seconds: float) -> str:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
        if not seconds:
            time.sleep(120)
        return "done"

    told: list[None] = []
    with ForkedWorker(work, patience=5.0) as beside:
        beside.send(3.0)
        assert beside.receive(meanwhile=lambda: told.append(None)) == "done"
        assert told
        beside.send(0.0)
        with pytest.raises(WorkerLostError, match=r"no CPU time in 5\.0 s"):
            beside.receive()


def test_a_task_that_nobody_takes_does_not_hold_who_hands_it_over() -> None:
    with ForkedWorker(len, patience=5.0) as beside:
        (pid,) = companions()
        os.kill(pid, signal.SIGSTOP)
        beside.send(bytes(10_000_000))

        with pytest.raises(WorkerLostError, match="no CPU time"):
            beside.receive()


def test_a_task_that_is_being_handed_over_is_given_up_when_it_is_closed() -> None:
    def work(_: bytes) -> None:
        os.fork()  # one more process has the other end
        os.kill(os.getpid(), signal.SIGSTOP)

    with ForkedWorker(work) as beside:
        beside.send(b"")
        (pid,) = companions()
        until(lambda: len(children(pid)) == 1)
        (other,) = children(pid)
        until(lambda: writers() == [])
        beside.send(bytes(10_000_000))
        assert len(writers()) == 1

    assert writers() == []
    os.kill(other, signal.SIGKILL)


def test_programs_that_it_starts_can_be_told_to_stop() -> None:
    def work(seconds: str) -> int:
        with subprocess.Popen(["sleep", seconds]) as program:
            program.terminate()
            return program.wait()

    with ForkedWorker(work) as beside:
        beside.send("120")

        assert beside.receive() == -signal.SIGTERM


def test_it_is_gone_when_it_is_closed_whatever_it_does() -> None:
    with ForkedWorker(time.sleep) as beside:
        beside.send(120)
        assert not beside.is_ready()
        (pid,) = companions()

    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.process
def test_it_dies_with_the_process_that_it_is_a_copy_of() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "at it\n"
        (pid,) = children(process.pid)

        process.kill()

        until(lambda: is_over(pid))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_that_ask_to_stop_are_not_its_own(number: signal.Signals) -> None:
    with ForkedWorker(double) as beside:
        beside.send(1)
        beside.receive()
        (pid,) = companions()
        os.kill(pid, number)
        beside.send(2)

        assert beside.receive() == 4


def test_there_is_none_where_a_package_would_wait_for_its_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    before = forked_worker.is_possible()
    monkeypatch.setitem(sys.modules, "jax", sys)

    assert before
    assert not forked_worker.is_possible()
