from __future__ import annotations

import os
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

from mlflow_sb3.runs import heartbeat, state_dir
from mlflow_sb3.runs.heartbeat import HEARTBEAT_TAG
from tests.faults.proxy import Proxy
from tests.faults.test_outage import Server
from tests.processes import PROCESS_TIMEOUT, wait_until

BEATING = """
import sys, time, mlflow
from mlflow_sb3 import heartbeat
mlflow.set_tracking_uri(sys.argv[1])
with heartbeat.beating(sys.argv[2]):
    print("ready", flush=True)
    time.sleep(3600)
"""
WATCHING = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", '''
import sys, time, mlflow
from mlflow_sb3 import ancestry, heartbeat
parents = ancestry.FIRST
mlflow.set_tracking_uri(sys.argv[1])
try:
    with heartbeat.beating(sys.argv[2], parents=parents):
        print("ready", flush=True)
        time.sleep(3600)
finally:
    print("told to stop", flush=True)
''', *sys.argv[1:]])
sys.stdin.read()
"""


@pytest.fixture
def run(store: str) -> Run:  # noqa: ARG001 a store to run in
    """A run that says RUNNING."""
    found = MlflowClient().create_run(mlflow.get_experiment_by_name("test").experiment_id)  # type: ignore[union-attr]
    assert found.info.status == "RUNNING"
    return found


@pytest.fixture
def server(store: str, tmp_path: Path) -> Iterator[Server]:  # noqa: ARG001 what MLflow goes back to
    """A server on a store of its own, which is the tracking server of this test."""
    folder = tmp_path / "server"
    folder.mkdir()
    found = Server(folder)
    found.start()
    mlflow.set_tracking_uri(found.uri)
    yield found
    found.kill()


def elsewhere(run: Run, seconds: float) -> Run:
    """As of a run of another machine, which beat so many seconds ago."""
    MlflowClient().set_tag(run.info.run_id, HEARTBEAT_TAG, str(time.time() - seconds))
    return mlflow.get_run(run.info.run_id)


def test_a_run_is_alive_while_its_process_beats_and_says_when_it_did(run: Run) -> None:
    with heartbeat.send_heartbeats(run.info.run_id):
        beaten = mlflow.get_run(run.info.run_id)
        assert heartbeat.is_alive(beaten)
        assert abs(float(beaten.data.tags[HEARTBEAT_TAG]) - time.time()) < 10


def test_a_process_that_was_killed_is_dead_at_once_on_its_own_machine(run: Run) -> None:
    command = [sys.executable, "-c", BEATING, mlflow.get_tracking_uri(), run.info.run_id]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        alive = heartbeat.is_alive(mlflow.get_run(run.info.run_id))
        process.kill()

    assert alive
    assert not heartbeat.is_alive(mlflow.get_run(run.info.run_id))


def test_on_another_machine_a_run_is_dead_when_it_stopped_beating(run: Run) -> None:
    assert heartbeat.is_alive(elsewhere(run, heartbeat.STALE_AFTER - 60))
    assert not heartbeat.is_alive(elsewhere(run, heartbeat.STALE_AFTER + 60))


@pytest.mark.parametrize("silence", [1, heartbeat.STALE_AFTER + 60], ids=["seconds", "an outage"])
def test_who_watches_a_run_of_another_machine_sees_whether_it_beats(
    run: Run, monkeypatch: pytest.MonkeyPatch, silence: float
) -> None:
    seen = elsewhere(run, silence)
    patience = "WATCHED" if silence < heartbeat.STALE_AFTER else "BACK"
    monkeypatch.setattr(heartbeat, patience, 2.0)
    assert not heartbeat.is_alive_after_watching(seen)

    monkeypatch.setattr(heartbeat, patience, PROCESS_TIMEOUT)
    beat = threading.Timer(0.5, elsewhere, [run, 0])
    beat.start()
    assert heartbeat.is_alive_after_watching(seen)
    beat.join()


def test_a_run_that_was_only_out_of_sight_takes_it_back(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_INTERVAL", 0.1)

    def is_back() -> bool:
        found = mlflow.get_run(run.info.run_id)
        return found.info.status == "RUNNING" and "error" not in found.data.tags

    with heartbeat.send_heartbeats(run.info.run_id):
        heartbeat.mark_failed(run.info.run_id)
        wait_until(is_back, describe_failure=lambda: "it stayed dead")


def test_a_lock_of_another_machine_that_shares_the_folder_tells_nothing(run: Run) -> None:
    lock = state_dir.get_state_dir() / "alive" / run.info.run_id
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text("another machine")

    assert heartbeat.is_alive(elsewhere(run, 1))
    assert not heartbeat.is_alive(elsewhere(run, heartbeat.STALE_AFTER + 60))


def test_a_full_disk_costs_the_lock_and_nothing_else(run: Run) -> None:
    lock = state_dir.get_state_dir() / "alive" / run.info.run_id
    lock.parent.mkdir(parents=True)
    lock.symlink_to("/dev/full")

    with heartbeat.send_heartbeats(run.info.run_id):
        beaten = mlflow.get_run(run.info.run_id)

    assert HEARTBEAT_TAG in beaten.data.tags
    assert not lock.is_symlink()


def test_beats_go_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_INTERVAL", 0.1)
    with heartbeat.send_heartbeats(run.info.run_id):
        for _ in range(2):
            elsewhere(run, 500)
            wait_until(
                lambda: float(mlflow.get_run(run.info.run_id).data.tags[HEARTBEAT_TAG]) > time.time() - 400
            )


def test_beats_while_a_run_is_called_dead_leave_nothing_of_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient()

    def with_a_beat_before(call: Callable[..., None]) -> Callable[..., None]:
        def called(*args: Any) -> None:
            heartbeat.restore_running(run.info.run_id, client)
            call(*args)

        return called

    for name in ("set_tag", "set_terminated"):
        monkeypatch.setattr(MlflowClient, name, with_a_beat_before(getattr(MlflowClient, name)))
    heartbeat.mark_failed(run.info.run_id)
    heartbeat.restore_running(run.info.run_id, client)

    found = mlflow.get_run(run.info.run_id)
    assert found.info.status == "RUNNING"
    assert not {"error", heartbeat.PRESUMED_DEAD_TAG} & set(found.data.tags)


@pytest.mark.process
def test_a_beat_comes_as_soon_as_a_server_is_back(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_INTERVAL", 1.0)
    run_id = MlflowClient().create_run("0").info.run_id
    with heartbeat.send_heartbeats(run_id):
        server.kill()
        time.sleep(20)  # after that, MLflow's client waits for longer than the test does
        server.start()
        back = time.time()
        wait_until(lambda: float(mlflow.get_run(run_id).data.tags[HEARTBEAT_TAG]) >= int(back))

    assert time.time() - back < 20


@pytest.mark.process
def test_beats_go_on_after_an_empty_answer(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "HEARTBEAT_INTERVAL", 0.2)
    with Proxy(server.port).running() as proxy:
        mlflow.set_tracking_uri(f"http://127.0.0.1:{proxy.port}")
        run_id = MlflowClient().create_run("0").info.run_id
        with heartbeat.send_heartbeats(run_id):
            proxy.status, proxy.reject = "200 OK", 1.0  # as of a page for the time of maintenance
            wait_until(lambda: proxy.faults > 2)
            proxy.reject = 0.0
            back = time.time()
            wait_until(lambda: float(mlflow.get_run(run_id).data.tags[HEARTBEAT_TAG]) >= int(back))

    assert time.time() - back < 20


@pytest.mark.process
@pytest.mark.parametrize("lives", [True, False], ids=["living", "dead"])
def test_a_server_that_was_away_makes_nobody_dead(
    server: Server, monkeypatch: pytest.MonkeyPatch, lives: bool
) -> None:
    watched = 10.0 if lives else 3.0  # who lives has as long to beat when the server is back
    monkeypatch.setattr(heartbeat, "WATCH_TIMEOUT", watched)
    seen = elsewhere(MlflowClient().create_run("0"), 1)

    def come_back() -> None:
        server.send(signal.SIGCONT)
        if lives:
            elsewhere(seen, 0)

    server.send(signal.SIGSTOP)
    back = threading.Timer(2 * watched, come_back)
    back.start()

    assert heartbeat.is_alive_after_watching(seen) == lives
    back.join()


def test_the_dead_are_marked_with_the_reason_and_the_living_and_strangers_are_not(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient()
    experiment = run.info.experiment_id
    living, returning, stranger, ending = (client.create_run(experiment) for _ in range(4))
    elsewhere(living, 0)
    elsewhere(ending, heartbeat.STALE_AFTER + 60)
    elsewhere(returning, heartbeat.STALE_AFTER + 60)
    elsewhere(run, heartbeat.STALE_AFTER + 60)

    looked: list[float] = []

    def meanwhile(seconds: float) -> None:
        looked.append(seconds)
        elsewhere(returning, 0)
        client.set_terminated(ending.info.run_id)

    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", meanwhile)
        buried = heartbeat.fail_stale_runs(experiment)

    found = client.get_run(run.info.run_id)
    assert looked == [heartbeat.RECONNECT_TIMEOUT]
    assert buried == [run.info.run_id]
    assert found.info.status == "FAILED"
    assert found.data.tags["error"].startswith("the process of this run ended without a word")
    assert [
        client.get_run(one.info.run_id).info.status for one in (living, returning, stranger)
    ] == ["RUNNING"] * 3
    assert client.get_run(ending.info.run_id).info.status == "FINISHED"


def test_a_process_ends_with_the_one_that_started_it(run: Run) -> None:
    command = [sys.executable, "-c", WATCHING, mlflow.get_tracking_uri(), run.info.run_id]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        parent.kill()
        parent.wait()
        start = time.monotonic()
        rest = parent.stdout.read()

    assert time.monotonic() - start < 20
    assert rest == ""  # a signal that nothing handles here


def test_state_lies_where_xdg_says_and_elsewhere_without_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert state_dir.get_state_dir() == tmp_path / "xdg" / "mlflow-sb3"
    assert state_dir.get_run_dir("run", "given") == Path.cwd() / "given" / "run"

    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert state_dir.get_state_dir().name == f"mlflow-sb3-{os.getuid()}"
