from __future__ import annotations

import json
import shlex
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_sb3.runs import state_dir
from mlflow_sb3.tracking.delivery import (
    RejectedError,
    UndeliveredError,
    deliver_journal,
    explain_undelivered,
)
from mlflow_sb3.tracking.journal import Journal
from mlflow_sb3.tracking.run_logger import MetricPoint, RunLogger
from mlflow_sb3.tracking.snapshot_uploader import SNAPSHOT_DIR, SNAPSHOT_NAMES, SNAPSHOT_TAG
from tests.training.interrupted_runs import make_interrupted_run

UNREACHABLE_URI = "http://127.0.0.1:9"


@pytest.fixture
def run_id(store: str) -> str:
    """A run of the store. The tracking URI is an unreachable server."""
    with mlflow.start_run() as run:
        pass
    mlflow.set_tracking_uri(UNREACHABLE_URI)
    assert store
    return str(run.info.run_id)


def set_tracking_uri(folder: Path, run_id: str, uri: str) -> None:
    """Change the tracking URI, both of this process and of a journal."""
    (folder / "run.json").write_text(json.dumps({"run_id": run_id, "tracking_uri": uri}))
    mlflow.set_tracking_uri(uri)


def test_deliver_journal_sends_what_a_run_could_not(
    run_id: str, store: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    points = [MetricPoint("a", float(step), 1000 + step, step) for step in range(1500)]

    def log_run() -> None:
        with RunLogger(run_id, folder, delivery_timeout=0) as run_logger:
            run_logger.log_metrics(points)
            run_logger.log_file("agent/agent.zip", b"agent")

    with pytest.raises(
        UndeliveredError, match=r"did not receive everything .* python -m mlflow_sb3 deliver .*run"
    ):
        log_run()

    assert json.loads((folder / "run.json").read_text()) == {
        "run_id": run_id,
        "tracking_uri": UNREACHABLE_URI,
    }
    set_tracking_uri(folder, run_id, store)

    assert deliver_journal(folder) == (run_id, True)

    history = MlflowClient().get_metric_history(run_id, "a")
    assert sorted((point.step, point.timestamp) for point in history) == [
        (step, 1000 + step) for step in range(1500)
    ]
    artifacts = MlflowClient().list_artifacts(run_id, "agent")
    assert [file.path for file in artifacts] == ["agent/agent.zip"]
    assert not folder.exists()


def test_deliver_journal_can_use_another_tracking_uri(
    run_id: str, store: str, tmp_path: Path
) -> None:
    journal = Journal(tmp_path, run_id, UNREACHABLE_URI)
    journal.append(tags={"key": "value"})
    journal.close()

    assert deliver_journal(tmp_path, tracking_uri=store) == (run_id, False)

    assert MlflowClient(store).get_run(run_id).data.tags["key"] == "value"


def test_rejected_items_stay_in_the_folder_and_all_others_arrive(
    run_id: str, store: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"

    def log_run() -> None:
        with RunLogger(run_id, folder, delivery_timeout=0) as run_logger:
            run_logger.log_file("gone.txt", "content")
            run_logger.log_metrics(
                [MetricPoint("no * name", 1.0, 5, 1), MetricPoint("b", 2.0, 5, 1)]
            )

    with pytest.raises(UndeliveredError, match="did not receive everything"):
        log_run()
    (folder / "files" / "gone.txt").unlink()
    set_tracking_uri(folder, run_id, store)

    with pytest.raises(
        RejectedError,
        match=r"rejected some items: .*gone\.txt does not exist any more; no \* name: .*"
        r"They stay in .*run",
    ):
        deliver_journal(folder)

    run = mlflow.get_run(run_id)
    assert (run.data.metrics, run.info.status) == ({"b": 2.0}, "FINISHED")
    with pytest.raises(RejectedError, match="rejected some items"):
        deliver_journal(folder)
    assert (folder / "journal.jsonl").exists()


@pytest.mark.usefixtures("store")
def test_an_incomplete_snapshot_is_not_uploaded(tmp_path: Path) -> None:
    journal = Journal(tmp_path, mlflow.start_run().info.run_id, mlflow.get_tracking_uri())
    journal.append(tags={"key": "value"})
    journal.close()
    (tmp_path / SNAPSHOT_DIR).mkdir()
    (tmp_path / SNAPSHOT_DIR / SNAPSHOT_NAMES[0]).write_bytes(b"mlflow-sb3 snapshot\n{")

    run_id, is_finished = deliver_journal(tmp_path)

    tags = mlflow.get_run(run_id).data.tags
    mlflow.end_run()
    assert not is_finished
    assert tags["key"] == "value"
    assert f"{SNAPSHOT_TAG}{SNAPSHOT_NAMES[0]}" not in tags


def test_the_message_hides_the_password_of_the_tracking_uri(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run", "id", "https://somebody:secret@example.org:5000")

    message = explain_undelivered(journal)

    assert "https://somebody:***@example.org:5000" in message
    assert "secret" not in message
    journal.close()


def test_the_command_in_the_message_quotes_the_folder(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "my runs", "id", "uri")

    assert shlex.split(explain_undelivered(journal))[-1] == str(tmp_path / "my runs")
    journal.close()


def test_the_message_says_whether_entries_are_lost(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.write_text("a file at the path of the folder")
    journal = Journal(folder, "run", "uri")
    journal.append(tags={"key": "a"})
    assert "which are lost" in explain_undelivered(journal)
    folder.unlink()

    journal.append(tags={"key": "b"})

    assert f"The rest is safe in {folder}" in explain_undelivered(journal)
    journal.close()


@pytest.mark.usefixtures("store")
def test_snapshots_are_uploaded_although_the_server_rejects_a_metric() -> None:
    run_id = make_interrupted_run()
    folder = state_dir.get_run_dir(run_id)
    journal = Journal.reopen(folder, None)
    journal.append(metrics=[["no * name", 1.0, 5, 1]])
    journal.close()

    with pytest.raises(RejectedError, match="rejected some items"):
        deliver_journal(folder)

    run = mlflow.get_run(run_id)
    assert any(key.startswith(SNAPSHOT_TAG) for key in run.data.tags)
