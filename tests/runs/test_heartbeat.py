from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from mlflow_sb3.runs import heartbeat, run_lock
from mlflow_sb3.runs.heartbeat import HEARTBEAT_TAG, PRESUMED_DEAD_TAG, STALE_AFTER
from tests.faults.proxy import Proxy
from tests.faults.test_outage import Server
from tests.processes import PROCESS_TIMEOUT, wait_until

SENDING = """
import sys, time, mlflow
from mlflow_sb3.runs import heartbeat
mlflow.set_tracking_uri(sys.argv[1])
with heartbeat.send_heartbeats(sys.argv[2]):
    print("ready", flush=True)
    time.sleep(3600)
"""
STARTING_A_CHILD = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", '''
import sys, time, mlflow
from mlflow_sb3.runs import heartbeat, parent_process
parents = parent_process.INITIAL_PARENT_PIDS
mlflow.set_tracking_uri(sys.argv[1])
try:
    with heartbeat.send_heartbeats(sys.argv[2], parents=parents):
        print("ready", flush=True)
        time.sleep(3600)
finally:
    print("no signal ended the process", flush=True)
''', *sys.argv[1:]])
sys.stdin.read()
"""


@pytest.fixture
def run(store: str) -> Run:
    """A RUNNING run without a process."""
    experiment = mlflow.get_experiment_by_name("test")
    assert experiment is not None
    run = MlflowClient().create_run(experiment.experiment_id)
    assert run.info.status == "RUNNING"
    return run


@pytest.fixture
def server(store: str, tmp_path: Path) -> Iterator[Server]:
    """A server that is the tracking server of this test."""
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder)
    server.start()
    mlflow.set_tracking_uri(server.uri)
    yield server
    server.kill()


def set_heartbeat_age(run: Run, seconds: float) -> Run:
    """Set the last heartbeat of a run as another machine does; return the run."""
    MlflowClient().set_tag(run.info.run_id, HEARTBEAT_TAG, str(time.time() - seconds))
    return mlflow.get_run(run.info.run_id)


def get_heartbeat_time(run_id: str) -> float:
    return float(mlflow.get_run(run_id).data.tags[HEARTBEAT_TAG])


def test_a_run_is_alive_while_its_process_sends_heartbeats(run: Run) -> None:
    with heartbeat.send_heartbeats(run.info.run_id):
        assert heartbeat.is_alive(mlflow.get_run(run.info.run_id))
        assert abs(get_heartbeat_time(run.info.run_id) - time.time()) < 10


@pytest.mark.process
def test_the_run_of_a_killed_process_is_not_alive_on_the_same_machine(run: Run) -> None:
    command = [sys.executable, "-c", SENDING, mlflow.get_tracking_uri(), run.info.run_id]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        was_alive = heartbeat.is_alive(mlflow.get_run(run.info.run_id))
        process.kill()

    assert was_alive
    assert not heartbeat.is_alive(mlflow.get_run(run.info.run_id))


def test_a_run_on_another_machine_is_alive_until_it_is_stale(run: Run) -> None:
    assert heartbeat.is_alive(set_heartbeat_age(run, STALE_AFTER - 60))
    assert not heartbeat.is_alive(set_heartbeat_age(run, STALE_AFTER + 60))


@pytest.mark.process
@pytest.mark.parametrize("age", [1, STALE_AFTER + 60], ids=["recent", "stale"])
def test_a_watched_run_is_alive_if_it_sends_a_heartbeat(
    run: Run, monkeypatch: pytest.MonkeyPatch, age: float
) -> None:
    watched_run = set_heartbeat_age(run, age)
    timeout = "WATCH_TIMEOUT" if age < STALE_AFTER else "RECONNECT_TIMEOUT"
    monkeypatch.setattr(heartbeat, timeout, 2.0)
    assert not heartbeat.is_alive_after_watching(watched_run)

    monkeypatch.setattr(heartbeat, timeout, PROCESS_TIMEOUT)
    sender = threading.Timer(0.5, set_heartbeat_age, [run, 0])
    sender.start()
    assert heartbeat.is_alive_after_watching(watched_run)
    sender.join()


def test_a_watched_run_that_ends_is_not_alive(run: Run) -> None:
    watched_run = set_heartbeat_age(run, 1)
    ending = threading.Timer(0.5, MlflowClient().set_terminated, [run.info.run_id])
    ending.start()

    assert not heartbeat.is_alive_after_watching(watched_run)
    ending.join()


def test_a_run_that_was_marked_as_failed_by_mistake_is_restored(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_INTERVAL", 0.1)

    def is_restored() -> bool:
        current = mlflow.get_run(run.info.run_id)
        return current.info.status == "RUNNING" and "error" not in current.data.tags

    with heartbeat.send_heartbeats(run.info.run_id):
        heartbeat.mark_failed(run.info.run_id)
        wait_until(is_restored, describe_failure=lambda: "the run stayed FAILED")


def test_heartbeats_between_the_requests_of_mark_failed_restore_the_run_completely(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient()

    def restore_before(method: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any) -> None:
            heartbeat.restore_running(run.info.run_id, client)
            method(*args)

        return call

    for name in ("set_tag", "set_terminated"):
        monkeypatch.setattr(MlflowClient, name, restore_before(getattr(MlflowClient, name)))
    heartbeat.mark_failed(run.info.run_id)
    heartbeat.restore_running(run.info.run_id, client)

    current = mlflow.get_run(run.info.run_id)
    assert current.info.status == "RUNNING"
    assert not {"error", PRESUMED_DEAD_TAG} & set(current.data.tags)


def test_heartbeats_are_sent_without_a_lock_file(run: Run) -> None:
    run_lock.get_lock_path(run.info.run_id).mkdir(parents=True)

    with heartbeat.send_heartbeats(run.info.run_id):
        assert heartbeat.is_alive(mlflow.get_run(run.info.run_id))


def test_heartbeats_are_sent_at_regular_intervals(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_INTERVAL", 0.1)
    with heartbeat.send_heartbeats(run.info.run_id):
        for _ in range(2):
            set_heartbeat_age(run, 500)
            wait_until(lambda: get_heartbeat_time(run.info.run_id) > time.time() - 400)


@pytest.mark.process
def test_a_heartbeat_is_sent_as_soon_as_the_server_is_back(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_INTERVAL", 1.0)
    run_id = MlflowClient().create_run("0").info.run_id
    with heartbeat.send_heartbeats(run_id):
        server.kill()
        time.sleep(20)  # the pause between two retries of MLflow's client is longer by then
        server.start()
        back = time.time()
        wait_until(lambda: get_heartbeat_time(run_id) >= int(back))

    assert time.time() - back < 20


@pytest.mark.process
def test_heartbeats_continue_after_an_empty_answer(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_INTERVAL", 0.2)
    with Proxy(server.port).running() as proxy:
        mlflow.set_tracking_uri(f"http://127.0.0.1:{proxy.port}")
        run_id = MlflowClient().create_run("0").info.run_id
        with heartbeat.send_heartbeats(run_id):
            proxy.reject_status, proxy.reject_probability = "200 OK", 1.0  # as during maintenance
            wait_until(lambda: proxy.fault_count > 2)
            proxy.reject_probability = 0.0
            back = time.time()
            wait_until(lambda: get_heartbeat_time(run_id) >= int(back))

    assert time.time() - back < 20


@pytest.mark.process
@pytest.mark.parametrize("is_alive", [True, False], ids=["alive", "dead"])
def test_the_time_without_a_server_does_not_count_as_watched(
    server: Server, monkeypatch: pytest.MonkeyPatch, is_alive: bool
) -> None:
    # A running process has as long to send a heartbeat after the server is back.
    timeout = 10.0 if is_alive else 3.0
    monkeypatch.setattr(heartbeat, "WATCH_TIMEOUT", timeout)
    run = set_heartbeat_age(MlflowClient().create_run("0"), 1)

    def continue_server() -> None:
        server.send_signal(signal.SIGCONT)
        if is_alive:
            set_heartbeat_age(run, 0)

    server.send_signal(signal.SIGSTOP)
    timer = threading.Timer(2 * timeout, continue_server)
    timer.start()

    assert heartbeat.is_alive_after_watching(run) == is_alive
    timer.join()


def test_only_stale_runs_of_this_project_are_marked_as_failed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient()
    experiment_id = run.info.experiment_id
    recent, returning, foreign, ending = (client.create_run(experiment_id) for _ in range(4))
    set_heartbeat_age(recent, 0)
    for stale in (ending, returning, run):
        set_heartbeat_age(stale, STALE_AFTER + 60)
    waits: list[float] = []

    def change_runs_while_waiting(seconds: float) -> None:
        waits.append(seconds)
        set_heartbeat_age(returning, 0)
        client.set_terminated(ending.info.run_id)

    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", change_runs_while_waiting)
        failed = heartbeat.fail_stale_runs(recent)

    failed_run = client.get_run(run.info.run_id)
    assert waits == [heartbeat.RECONNECT_TIMEOUT]
    assert failed == [run.info.run_id]
    assert failed_run.info.status == "FAILED"
    assert failed_run.data.tags["error"].startswith("The process of this run ended unexpectedly")
    for other in (recent, returning, foreign):
        assert client.get_run(other.info.run_id).info.status == "RUNNING"
    assert client.get_run(ending.info.run_id).info.status == "FINISHED"


def test_a_run_that_was_created_twice_is_marked_as_failed(run: Run) -> None:
    """MLflow repeats the request if the answer of the server is lost."""
    client, experiment_id = MlflowClient(), run.info.experiment_id
    tags = {"mlflow.project.entryPoint": "main", "mlflow.user": "alice"}
    own, copy, with_params = (client.create_run(experiment_id, 1000, tags) for _ in range(3))
    later = client.create_run(experiment_id, 1001, tags)
    of_another_user = client.create_run(experiment_id, 1000, tags | {"mlflow.user": "bob"})
    client.log_param(with_params.info.run_id, "timesteps", "64")

    failed = heartbeat.fail_stale_runs(own)

    assert failed == [copy.info.run_id]
    assert "was sent twice" in client.get_run(copy.info.run_id).data.tags["error"]
    for other in (own, with_params, later, of_another_user):
        assert client.get_run(other.info.run_id).info.status == "RUNNING"


@pytest.mark.process
def test_a_process_ends_after_its_parent(run: Run) -> None:
    command = [sys.executable, "-c", STARTING_A_CHILD, mlflow.get_tracking_uri(), run.info.run_id]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        parent.kill()
        parent.wait()
        start = time.monotonic()
        rest = parent.stdout.read()

    assert time.monotonic() - start < 20
    assert rest == ""  # nothing handles the signal here
