from __future__ import annotations

import signal
import subprocess
import sys
import time

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mlflow_sb3.client.preflight import ArtifactStoreError
from mlflow_sb3.runs import heartbeat, run_lock, signals, step_run
from mlflow_sb3.runs.signals import Interrupted
from tests import ROOT

HANGING_UPLOAD = """
import threading, time
from concurrent.futures import ThreadPoolExecutor
from mlflow_sb3.runs import step_run

def upload():
    ThreadPoolExecutor(1).submit(time.sleep, 3600).result()

step_run.EXIT_TIMEOUT = 0.5
with step_run.limit_exit_time():
    thread = threading.Thread(target=upload, daemon=True)
    thread.start()
    thread.join(0.5)
    print("done")
    {end}
"""


def get_last_run() -> Run:
    run = mlflow.last_active_run()
    assert run is not None
    return mlflow.get_run(run.info.run_id)


def list_artifacts(run: Run) -> list[str]:
    return [file.path for file in MlflowClient().list_artifacts(run.info.run_id)]


@pytest.mark.usefixtures("store")
def test_the_run_is_finished_and_has_sent_a_heartbeat() -> None:
    with step_run.start_step_run() as run_id:
        assert mlflow.get_run(run_id).info.status == "RUNNING"
        assert run_lock.is_run_locked(run_id) is True

    run = mlflow.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert heartbeat.HEARTBEAT_TAG in run.data.tags
    assert run_lock.is_run_locked(run_id) is None


@pytest.mark.usefixtures("store")
def test_a_failed_run_has_the_message_and_the_traceback() -> None:
    with pytest.raises(KeyError, match="missing"), step_run.start_step_run():
        raise KeyError("missing")

    run = get_last_run()
    traceback = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{step_run.TRACEBACK_FILE}")
    assert run.info.status == "FAILED"
    assert run.data.tags[step_run.ERROR_TAG] == "KeyError: 'missing'"
    assert "Traceback" in traceback


@pytest.mark.usefixtures("store")
def test_no_traceback_is_logged_if_the_artifact_store_failed() -> None:
    with (
        pytest.raises(ArtifactStoreError, match="artifacts are read-only"),
        step_run.start_step_run(),
    ):
        raise ArtifactStoreError("artifacts are read-only")

    assert list_artifacts(get_last_run()) == []


@pytest.mark.usefixtures("store")
def test_the_caller_can_describe_errors() -> None:
    with (
        pytest.raises(ValueError, match="bad"),
        step_run.start_step_run(lambda error: f"described: {error}"),
    ):
        raise ValueError("bad")

    assert get_last_run().data.tags[step_run.ERROR_TAG] == "described: bad"


@pytest.mark.usefixtures("store")
def test_an_interrupted_run_is_killed_even_if_the_clean_up_fails() -> None:
    def stop_and_fail() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            raise ConnectionError("the server is down")

    with pytest.raises(Interrupted, match="SIGTERM"), step_run.start_step_run():
        stop_and_fail()

    run = get_last_run()
    assert run.info.status == "KILLED"
    assert run.data.tags[signals.INTERRUPTED_TAG] == "SIGTERM"
    assert step_run.ERROR_TAG not in run.data.tags


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    "error", [LookupError("late"), Interrupted(signal.SIGTERM)], ids=["error", "SIGTERM"]
)
def test_a_finished_run_stays_finished(error: BaseException) -> None:
    def finish_and_fail() -> None:
        with step_run.start_step_run() as run_id:
            MlflowClient().set_terminated(run_id)
            raise error

    with pytest.raises(type(error), match=r"late|SIGTERM"):
        finish_and_fail()

    run = get_last_run()
    assert run.info.status == "FINISHED"
    assert not {step_run.ERROR_TAG, signals.INTERRUPTED_TAG} & set(run.data.tags)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("two\nlines"), "two lines"),
        (MlflowException("no such run"), "no such run"),
        (KeyError("missing"), "KeyError: 'missing'"),
    ],
)
def test_an_error_is_described_in_one_line(error: Exception, message: str) -> None:
    assert step_run.describe_error(error) == message


@pytest.mark.process
@pytest.mark.parametrize(
    ("end", "code"), [("pass", 0), ("raise SystemExit(3)", 3), ("raise SystemExit('no')", 1)]
)
def test_a_process_exits_with_its_code_although_an_upload_hangs(end: str, code: int) -> None:
    start = time.monotonic()
    completed = subprocess.run(
        [sys.executable, "-c", HANGING_UPLOAD.format(end=end)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert completed.returncode == code, completed.stderr
    assert completed.stdout == "done\n"
    assert time.monotonic() - start < 120
