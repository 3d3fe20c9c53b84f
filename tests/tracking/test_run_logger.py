from __future__ import annotations

import json
import logging
import os
import shlex
import socket
import sqlite3
import subprocess
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_sb3.runs.signals import Interrupted
from mlflow_sb3.tracking import atomic_file, journal, journal_sender, run_logger, snapshot_header, snapshot_uploader
from mlflow_sb3.tracking.journal import Journal
from mlflow_sb3.tracking.run_logger import RefusedError, RunLogger, UndeliveredError
from tests.processes import until

AWAY = "http://127.0.0.1:9"


@pytest.fixture
def away(store: str) -> str:
    """A run of a store, and a server in front of it that does not answer; returns the id of the run."""
    with mlflow.start_run() as run:
        pass
    mlflow.set_tracking_uri(AWAY)
    run_id: str = run.info.run_id
    assert store
    return run_id


def fail(told: RunLogger, error: BaseException) -> None:
    with told:
        told.points([("a", 1.0, 5, 1)])
        raise error


def status(run_id: str) -> str:
    return str(mlflow.get_run(run_id).info.status)


@pytest.mark.usefixtures("store")
def test_parameters_tags_and_files_arrive_and_the_run_is_finished(tmp_path: Path) -> None:
    with mlflow.start_run() as run:
        with RunLogger(run.info.run_id, tmp_path / "run") as told:
            told.params({f"p{number}": number for number in range(250)})
            told.tags({"tag": "value"})
            told.file("deep/er/file.txt", "content")
            told.file("top.bin", b"\x00")
        assert status(run.info.run_id) == "FINISHED"

    data = mlflow.get_run(run.info.run_id).data
    assert data.params == {f"p{number}": str(number) for number in range(250)}
    assert data.tags["tag"] == "value"
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/deep/er/file.txt") == "content"
    assert "top.bin" in {file.path for file in MlflowClient().list_artifacts(run.info.run_id)}
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "ends"), [(Interrupted(15), "KILLED"), (ValueError("no"), "FAILED")]
)
@pytest.mark.usefixtures("store")
def test_a_run_that_does_not_finish_says_how_it_ended_and_keeps_its_folder(
    error: BaseException, ends: str, tmp_path: Path
) -> None:
    run = mlflow.start_run()

    with pytest.raises(type(error), match=str(error)):
        fail(RunLogger(run.info.run_id, tmp_path / "run"), error)

    assert (status(run.info.run_id), mlflow.get_run(run.info.run_id).data.metrics) == (
        ends,
        {"a": 1.0},
    )
    assert (tmp_path / "run" / "run.json").exists()
    mlflow.end_run()


def test_what_is_not_delivered_says_how_to_deliver_it(
    away: str, store: str, tmp_path: Path
) -> None:
    def train() -> None:
        with RunLogger(away, tmp_path / "run", patience=0) as told:
            told.points([("a", float(step), 1000 + step, step) for step in range(1500)])
            told.file("agent/agent.zip", b"agent")

    with pytest.raises(
        UndeliveredError, match=r"did not take everything .* python -m steps\.deliver .*run"
    ):
        train()

    assert json.loads((tmp_path / "run" / "run.json").read_text()) == {
        "run_id": away,
        "tracking_uri": AWAY,
    }
    (tmp_path / "run" / "run.json").write_text(json.dumps({"run_id": away, "tracking_uri": store}))
    mlflow.set_tracking_uri(store)
    assert run_logger.deliver_journal(tmp_path / "run") == (away, True)
    history = MlflowClient().get_metric_history(away, "a")
    assert sorted((point.step, point.timestamp) for point in history) == [
        (step, 1000 + step) for step in range(1500)
    ]
    assert {file.path for file in MlflowClient().list_artifacts(away, "agent")} == {
        "agent/agent.zip"
    }
    assert not (tmp_path / "run").exists()


def test_a_training_that_fails_says_why_and_not_what_was_not_delivered(
    away: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(run_logger, "SHORT_DELIVERY_TIMEOUT", 0)
    with caplog.at_level(logging.WARNING), pytest.raises(RuntimeError, match="the training itself"):
        fail(RunLogger(away, tmp_path / "run"), RuntimeError("the training itself"))

    assert "python -m steps.deliver" in caplog.text


@pytest.mark.usefixtures("store")
def test_snapshots_are_uploaded_in_the_background_and_gone_when_the_run_has_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_uploader, "INTERVAL", 0.05)
    monkeypatch.setattr(snapshot_uploader, "UPLOAD", 0.0)
    header = snapshot_header.SnapshotHeader(step=7, learned=False, context={}, n_envs=1)
    client, name = MlflowClient(), f"{snapshot_uploader.SNAPSHOT_TAG}{snapshot_uploader.SLOTS[0]}"
    with mlflow.start_run() as run, RunLogger(run.info.run_id, tmp_path / "run") as told:
        path = tmp_path / "run" / snapshot_uploader.SNAPSHOT_DIR / snapshot_uploader.SLOTS[0]
        atomic_file.write_draft(
            path,
            lambda file: file.write(
                b"mlflow-sb3 snapshot\n" + json.dumps(asdict(header)).encode() + b"\n"
            ),
        )
        digest = atomic_file.seal(path)
        told.snapshot(path)
        until(lambda: name in client.get_run(run.info.run_id).data.tags)
        tag = client.get_run(run.info.run_id).data.tags[name]
        uploaded = {
            file.path
            for file in client.list_artifacts(run.info.run_id, snapshot_uploader.SNAPSHOT_DIR)
        }

    assert json.loads(tag) == {"step": 7, "learned": False, "digest": digest}
    assert uploaded == {"snapshots/0.snapshot"}
    assert client.list_artifacts(run.info.run_id) == []
    assert name not in client.get_run(run.info.run_id).data.tags


@pytest.mark.usefixtures("store")
def test_the_end_of_a_run_does_not_wait_for_an_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file that nobody has begun to write: whoever reads it waits."""
    monkeypatch.setattr(snapshot_uploader, "INTERVAL", 0.05)
    monkeypatch.setattr(snapshot_uploader, "UPLOAD", 0.0)
    monkeypatch.setattr(snapshot_uploader, "PATIENCE", 0.1)
    path = tmp_path / "endless"
    os.mkfifo(path)
    with mlflow.start_run() as run:
        with RunLogger(run.info.run_id, tmp_path / "run", patience=1) as told:
            told.snapshot(path)
            until(lambda: list(tmp_path.glob("upload-*")))
            told.points([("a", 1.0, 5, 1)])
        found = mlflow.get_run(run.info.run_id)
        path.open("wb").close()

    assert (found.info.status, found.data.metrics) == ("FINISHED", {"a": 1.0})


@pytest.mark.usefixtures("store")
def test_a_snapshot_that_was_cut_short_replaces_none_among_the_artifacts(tmp_path: Path) -> None:
    told = Journal(tmp_path, mlflow.start_run().info.run_id, mlflow.get_tracking_uri())
    told.append(tags={"a": "b"})
    told.close()
    (tmp_path / snapshot_uploader.SNAPSHOT_DIR).mkdir()
    (tmp_path / snapshot_uploader.SNAPSHOT_DIR / snapshot_uploader.SLOTS[0]).write_bytes(
        b"mlflow-sb3 snapshot\n{"
    )

    run_id, finished = run_logger.deliver_journal(tmp_path)

    run = mlflow.get_run(run_id)
    mlflow.end_run()
    assert not finished
    assert (
        run.data.tags["a"],
        f"{snapshot_uploader.SNAPSHOT_TAG}{snapshot_uploader.SLOTS[0]}" in run.data.tags,
    ) == ("b", False)


def test_a_file_has_room_before_the_older_snapshot_has(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk / "tmp"))
    (small_disk / "tmp").mkdir()
    told = RunLogger("run", small_disk / "run")
    older, newer = (
        small_disk / "run" / snapshot_uploader.SNAPSHOT_DIR / name
        for name in snapshot_uploader.SLOTS
    )
    for path in (older, newer):
        atomic_file.write_draft(path, lambda file: file.write(bytes(400_000)))
        told.snapshot(path)

    told.file("agent/agent.zip", bytes(300_000))
    with pytest.raises(OSError, match="No space left"):
        told.file("agent/more.zip", bytes(600_000))

    assert (small_disk / "run" / "files" / "agent" / "agent.zip").stat().st_size == 300_000
    assert (older.exists(), newer.exists()) == (False, True)
    assert tmp_path


@pytest.mark.usefixtures("store")
def test_a_run_that_was_in_the_trash_for_a_while_has_every_point(tmp_path: Path) -> None:
    run_id, client = mlflow.start_run().info.run_id, MlflowClient()
    mlflow.end_run()
    left = Journal(tmp_path, run_id, mlflow.get_tracking_uri())
    left.append(metrics=[("a", 1.0, 5, 1), ("a", 2.0, 6, 2)])
    client.delete_run(run_id)
    sender = journal_sender.JournalSender(left)

    with pytest.raises(MlflowException, match="must be in the 'active' state"):
        sender.deliver()
    client.restore_run(run_id)
    sender.deliver()

    assert sender.refusals == []
    assert [point.step for point in client.get_metric_history(run_id, "a")] == [1, 2]


def test_a_database_that_could_only_be_read_for_a_while_has_every_point(
    store: str, tmp_path: Path
) -> None:
    run_id, client = mlflow.start_run().info.run_id, MlflowClient()
    mlflow.end_run()
    left = Journal(tmp_path, run_id, mlflow.get_tracking_uri())
    left.append(metrics=[("a", 1.0, 5, 1), ("a", 2.0, 6, 2)])
    database = sqlite3.connect(store.removeprefix("sqlite:///"))
    for table in ("metrics", "tags"):
        database.execute(
            f"CREATE TRIGGER no_{table} BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'read-only'); END"
        )
    sender = journal_sender.JournalSender(left)

    with pytest.raises(MlflowException, match="read-only"):
        sender.deliver()
    for table in ("metrics", "tags"):
        database.execute(f"DROP TRIGGER no_{table}")
    database.close()
    sender.deliver()

    assert sender.refusals == []
    assert [point.step for point in client.get_metric_history(run_id, "a")] == [1, 2]


@pytest.mark.usefixtures("store")
def test_what_was_delivered_twice_is_there_once(tmp_path: Path) -> None:
    points = [("a", float(step), 1000 + step, step) for step in range(10)]
    with mlflow.start_run() as run:
        with RunLogger(run.info.run_id, tmp_path / "one") as told:
            told.points(points)
        with RunLogger(run.info.run_id, tmp_path / "two") as told:
            told.points(points)

    assert len(MlflowClient().get_metric_history(run.info.run_id, "a")) == 10


@pytest.mark.usefixtures("store")
def test_the_state_counts_points_and_has_those_that_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_logger, "SEND_INTERVAL", 1000.0)
    with mlflow.start_run() as run, RunLogger(run.info.run_id, tmp_path / "run") as told:
        told.points([("a", 1.0, 5, 1), ("b", 2.0, 5, 1)])
        told.points([("a", 3.0, 6, 2)])
        found = told.state()

    assert found == {
        "counts": {"a": 2, "b": 1},
        "waiting": [("a", 1.0, 5, 1), ("b", 2.0, 5, 1), ("a", 3.0, 6, 2)],
    }


def test_what_will_never_arrive_keeps_nothing_else_back_and_its_folder(
    away: str, store: str, tmp_path: Path
) -> None:
    def train() -> None:
        with RunLogger(away, tmp_path / "run", patience=0) as told:
            told.file("gone.txt", "content")
            told.points([("no * name", 1.0, 5, 1), ("b", 2.0, 5, 1)])

    with pytest.raises(UndeliveredError, match="did not take everything"):
        train()
    (tmp_path / "run" / "files" / "gone.txt").unlink()
    (tmp_path / "run" / "run.json").write_text(json.dumps({"run_id": away, "tracking_uri": store}))
    mlflow.set_tracking_uri(store)

    with pytest.raises(
        MlflowException,
        match=r"some of it will never arrive, and stays in .*gone\.txt is gone; no \* name",
    ):
        run_logger.deliver_journal(tmp_path / "run")

    assert mlflow.get_run(away).data.metrics == {"b": 2.0}
    assert status(away) == "FINISHED"
    with pytest.raises(RefusedError, match=r"some of it will never arrive"):
        run_logger.deliver_journal(tmp_path / "run")
    assert (tmp_path / "run" / "journal.jsonl").exists()


@pytest.mark.usefixtures("store")
def test_a_healthy_server_needs_no_patience(tmp_path: Path) -> None:
    with (
        mlflow.start_run() as run,
        RunLogger(run.info.run_id, tmp_path / "run", patience=0) as told,
    ):
        told.points([("a", 1.0, 5, 1)])

    assert mlflow.get_run(run.info.run_id).data.metrics == {"a": 1.0}


@pytest.mark.usefixtures("store")
def test_the_end_of_a_run_waits_for_a_silent_artifact_store_only_as_long_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        away = {"MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        for name, value in (
            away | {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing"}
        ).items():
            monkeypatch.setenv(name, value)
        client = MlflowClient()
        run_id = client.create_run(
            client.create_experiment("silent", artifact_location="s3://silent")
        ).info.run_id
        start = time.monotonic()

        with (
            pytest.raises(UndeliveredError, match="did not take everything"),
            RunLogger(run_id, tmp_path / "run", patience=0) as told,
        ):
            told.file("file.txt", "content")

        assert time.monotonic() - start < 60


@pytest.mark.usefixtures("store")
def test_errors_of_an_artifact_store_do_not_end_the_delivery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An upload that fails for a reason that only an SDK knows: here, a snapshot that is none."""
    monkeypatch.setattr(snapshot_uploader, "INTERVAL", 0.05)
    monkeypatch.setattr(snapshot_uploader, "UPLOAD", 0.0)
    path = tmp_path / "run" / snapshot_uploader.SNAPSHOT_DIR / snapshot_uploader.SLOTS[0]
    with mlflow.start_run() as run, RunLogger(run.info.run_id, tmp_path / "run") as told:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"mlflow-sb3 snapshot\n{}\n")
        told.snapshot(path)
        until(lambda: caplog.text.count("0.snapshot was cut short") > 1)
        told.points([("a", 1.0, 5, 1)])
        until(
            lambda: mlflow.get_run(run.info.run_id).data.metrics,
            otherwise=lambda: "nothing was delivered any more",
        )


def test_a_password_is_not_told(tmp_path: Path) -> None:
    left = Journal(tmp_path / "run", "id", "https://somebody:secret@example.org:5000")

    assert "https://somebody:***@example.org:5000" in run_logger.undelivered_message(left)
    assert "secret" not in run_logger.undelivered_message(left)
    assert (tmp_path / "run").stat().st_mode & 0o077 == 0


def test_the_command_that_delivers_can_be_called_as_it_stands(tmp_path: Path) -> None:
    left = Journal(tmp_path / "my runs", "id", "uri")

    assert shlex.split(run_logger.undelivered_message(left))[-1] == str(tmp_path / "my runs")
    left.close()


@pytest.mark.parametrize("mark", ["", "garbage"])
def test_a_mark_that_was_cut_short_sends_everything_again(mark: str, tmp_path: Path) -> None:
    first = Journal(tmp_path, "run", "uri")
    first.append(tags={"n": "1"})
    first.close()
    (tmp_path / "delivered").write_text(mark)

    assert [entry["n"] for entry in Journal.reopen(tmp_path).waiting()] == [1]


def test_a_journal_that_is_opened_again_has_what_was_not_delivered(tmp_path: Path) -> None:
    first = Journal(tmp_path, "run", "uri")
    for number in range(5):
        first.append(tags={"n": str(number)})
    first.delivered(2)
    first.close()

    again = Journal.reopen(tmp_path)
    again.append(tags={"n": "5"})

    assert (again.run_id, again.tracking_uri) == ("run", "uri")
    assert [entry["n"] for entry in again.waiting()] == [3, 4, 5, 6]
    assert [entry["tags"]["n"] for entry in again.waiting()] == ["2", "3", "4", "5"]
    again.close()


def test_a_journal_that_was_cut_short_anywhere_has_its_whole_lines_and_goes_on(
    tmp_path: Path,
) -> None:
    first = Journal(tmp_path / "whole", "run", "uri")
    for number in range(3):
        first.append(tags={"n": str(number)})
    first.close()
    content = (tmp_path / "whole" / "journal.jsonl").read_bytes()
    for length in range(len(content) + 1):
        folder = tmp_path / str(length)
        folder.mkdir()
        (folder / "journal.jsonl").write_bytes(content[:length])

        cut = Journal(folder, "run", "uri")
        before = len(cut.waiting())
        cut.append(tags={"n": "new"})
        cut.close()

        assert [entry["tags"]["n"] for entry in journal.read(folder)] == [*"012"[:before], "new"]
        assert before == content[:length].count(b"}}")


def test_a_disk_that_is_full_leaves_a_journal_in_memory_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "no folder").write_text("a file in its place")

    told = Journal(tmp_path / "no folder", "run", "uri")
    told.append(tags={"n": "1"})
    told.append(tags={"n": "2"})

    assert [entry["n"] for entry in told.waiting()] == [1, 2]
    assert caplog.text.count("cannot be written") == 1


def test_what_was_delivered_is_written_no_more_when_there_is_room_again(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file in its place")
    told = Journal(tmp_path / "run", "run", "uri")
    told.append(tags={"n": "1"})
    told.delivered(1)
    (tmp_path / "run").unlink()

    told.append(tags={"n": "2"})

    assert [entry["tags"]["n"] for entry in journal.read(tmp_path / "run")] == ["2"]
    told.close()


def test_a_journal_in_a_folder_that_cannot_be_written_is_delivered_all_the_same(
    small_disk: Path,
) -> None:
    first = Journal(small_disk / "run", "run", "uri")
    first.append(tags={"n": "1"})
    first.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    assert [entry["n"] for entry in Journal.reopen(small_disk / "run").waiting()] == [1]


def test_what_could_not_be_written_is_written_when_there_is_room_again(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file in its place")
    told = Journal(tmp_path / "run", "run", "uri")
    told.append(tags={"n": "1"})
    before = told.is_written(), run_logger.undelivered_message(told)
    (tmp_path / "run").unlink()

    told.append(tags={"n": "2"})

    assert before[0] is False
    assert "is lost" in before[1]
    assert told.is_written()
    assert "it is safe in" in run_logger.undelivered_message(told)
    assert [entry["tags"]["n"] for entry in journal.read(tmp_path / "run")] == ["1", "2"]
    told.close()
