from __future__ import annotations

import sqlite3
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_sb3.tracking.journal import Journal
from mlflow_sb3.tracking.journal_sender import JournalSender


@pytest.fixture
def sender(store: str, tmp_path: Path) -> JournalSender:
    """Sender with an empty journal of a run that has ended."""
    with mlflow.start_run() as run:
        pass
    return JournalSender(Journal(tmp_path / "run", run.info.run_id, store))


def stored_steps(sender: JournalSender) -> list[int]:
    """Return the steps of the metric ``a`` that the tracking server has."""
    history = sender.client.get_metric_history(sender.journal.run_id, "a")
    return [point.step for point in history]


def test_all_points_arrive_after_a_deleted_run_was_restored(sender: JournalSender) -> None:
    sender.journal.append(metrics=[("a", 1.0, 5, 1), ("a", 2.0, 6, 2)])
    sender.client.delete_run(sender.journal.run_id)

    with pytest.raises(MlflowException, match="must be in the 'active' state"):
        sender.send_pending()
    sender.client.restore_run(sender.journal.run_id)
    sender.send_pending()

    assert sender.rejections == []
    assert stored_steps(sender) == [1, 2]


def test_all_points_arrive_after_a_database_was_read_only(
    sender: JournalSender, store: str
) -> None:
    sender.journal.append(metrics=[("a", 1.0, 5, 1), ("a", 2.0, 6, 2)])
    database = sqlite3.connect(store.removeprefix("sqlite:///"))
    for table in ("metrics", "tags"):
        database.execute(
            f"CREATE TRIGGER no_{table} BEFORE INSERT ON {table} "
            "BEGIN SELECT RAISE(ABORT, 'read-only'); END"
        )

    with pytest.raises(MlflowException, match="read-only"):
        sender.send_pending()
    for table in ("metrics", "tags"):
        database.execute(f"DROP TRIGGER no_{table}")
    database.close()
    sender.send_pending()

    assert sender.rejections == []
    assert stored_steps(sender) == [1, 2]


def test_a_rejected_metric_does_not_affect_the_others(sender: JournalSender) -> None:
    sender.journal.append(metrics=[("a", 1.0, 5, 1), ("no * name", 2.0, 5, 1)])
    sender.journal.append(metrics=[("a", 3.0, 6, 2)])

    sender.send_pending()

    assert stored_steps(sender) == [1, 2]
    assert len(sender.rejections) == 1
    assert sender.rejections[0].startswith("no * name: Invalid value")
    assert sender.journal.get_pending_entries() == []


def test_a_missing_file_is_reported_as_rejected(sender: JournalSender) -> None:
    sender.journal.append(file="files/missing.txt", to="")
    sender.journal.append(tags={"key": "value"})

    sender.send_pending()

    path = sender.journal.folder / "files" / "missing.txt"
    assert sender.rejections == [f"{path} does not exist any more"]
    assert MlflowClient().get_run(sender.journal.run_id).data.tags["key"] == "value"


def test_entries_beyond_the_limits_of_one_call_arrive(sender: JournalSender) -> None:
    for start in range(0, 1500, 300):
        sender.journal.append(
            metrics=[("a", 1.0, step, step) for step in range(start, start + 300)]
        )
    sender.journal.append(params={f"p{number}": "value" for number in range(60)})
    sender.journal.append(params={f"q{number}": "value" for number in range(60)})

    sender.send_pending()

    assert sorted(stored_steps(sender)) == list(range(1500))
    assert len(MlflowClient().get_run(sender.journal.run_id).data.params) == 120
