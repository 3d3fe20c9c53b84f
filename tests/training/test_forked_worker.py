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
from mlflow_sb3.training.forked_worker import SENDER_NAME, ForkedWorker, WorkerLostError
from tests.processes import has_ended, list_children, list_forked_workers, wait_until

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="worker processes are only forked on Linux"
)

PARENT_PROGRAM = """
import time
from mlflow_sb3.training.forked_worker import ForkedWorker

def work(task):
    print("working", flush=True)
    time.sleep(3600)

worker = ForkedWorker(work)
worker.send("task")
time.sleep(3600)
"""


def double(task: int) -> int:
    return 2 * task


def list_senders() -> list[threading.Thread]:
    """Return the threads of this process that send a task."""
    return [thread for thread in threading.enumerate() if thread.name == SENDER_NAME]


def test_a_worker_runs_one_task_after_the_other() -> None:
    with ForkedWorker(double) as worker:
        results = []
        for task in (1, 2):
            worker.send(task)
            results.append(worker.receive())

    assert results == [2, 4]


def test_a_worker_has_the_objects_of_its_parent_and_changes_only_copies() -> None:
    values: list[Any] = ["before"]

    def work(task: str) -> list[str]:
        values.append(task)
        return values

    with ForkedWorker(work) as worker:
        worker.send("task")
        result = worker.receive()

    assert result == ["before", "task"]
    assert values == ["before"]


@pytest.mark.parametrize(
    "work",
    [lambda task: 1 / task, lambda _: os.kill(os.getpid(), signal.SIGKILL)],
    ids=["fails", "is killed"],
)
def test_a_worker_that_ends_is_lost_for_all_later_tasks(work: Any) -> None:
    with ForkedWorker(work) as worker:
        for _ in range(2):
            worker.send(0)
            with pytest.raises(WorkerLostError, match="it failed or was killed"):
                worker.receive()


@pytest.mark.process
def test_a_worker_without_cpu_time_is_lost_and_a_busy_worker_is_not() -> None:
    def work(seconds: float) -> str:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
        if not seconds:
            time.sleep(120)
        return "done"

    calls: list[None] = []
    with ForkedWorker(work, stall_timeout=5.0) as worker:
        worker.send(3.0)
        assert worker.receive(while_waiting=lambda: calls.append(None)) == "done"
        assert calls
        worker.send(0.0)
        with pytest.raises(WorkerLostError, match=r"it used no CPU time for 5\.0 s"):
            worker.receive()


@pytest.mark.process
def test_send_does_not_wait_for_a_worker_that_reads_nothing() -> None:
    with ForkedWorker(len, stall_timeout=5.0) as worker:
        (pid,) = list_forked_workers()
        os.kill(pid, signal.SIGSTOP)
        worker.send(bytes(10_000_000))

        with pytest.raises(WorkerLostError, match="it used no CPU time"):
            worker.receive()


def test_close_ends_a_pending_send_even_if_another_process_holds_the_pipe() -> None:
    def work(_: bytes) -> None:
        os.fork()
        os.kill(os.getpid(), signal.SIGSTOP)

    with ForkedWorker(work) as worker:
        worker.send(b"")
        (pid,) = list_forked_workers()
        wait_until(lambda: len(list_children(pid)) == 1)
        (grandchild,) = list_children(pid)
        wait_until(lambda: list_senders() == [])
        worker.send(bytes(10_000_000))
        assert len(list_senders()) == 1

    assert list_senders() == []
    os.kill(grandchild, signal.SIGKILL)


def test_programs_that_a_worker_starts_react_to_sigterm() -> None:
    def work(seconds: str) -> int:
        with subprocess.Popen(["sleep", seconds]) as program:
            program.terminate()
            return program.wait()

    with ForkedWorker(work) as worker:
        worker.send("120")

        assert worker.receive() == -signal.SIGTERM


def test_close_ends_a_busy_worker() -> None:
    with ForkedWorker(time.sleep) as worker:
        worker.send(120)
        assert not worker.is_ready()
        (pid,) = list_forked_workers()

    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.process
def test_a_worker_ends_with_its_parent() -> None:
    command = [sys.executable, "-c", PARENT_PROGRAM]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        (pid,) = list_children(process.pid)

        process.kill()

        wait_until(lambda: has_ended(pid))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_ignores_stop_signals(number: signal.Signals) -> None:
    with ForkedWorker(double) as worker:
        worker.send(1)
        worker.receive()
        (pid,) = list_forked_workers()
        os.kill(pid, number)
        worker.send(2)

        assert worker.receive() == 4


def test_no_worker_is_available_if_a_package_does_not_survive_fork(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    before = forked_worker.is_available()
    monkeypatch.setitem(sys.modules, "jax", sys)

    assert before
    assert not forked_worker.is_available()
