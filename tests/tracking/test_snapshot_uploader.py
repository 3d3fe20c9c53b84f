from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_sb3.tracking import atomic_file, snapshot_header, snapshot_uploader
from mlflow_sb3.tracking.file_trust import FileTrust
from mlflow_sb3.tracking.run_logger import MetricPoint, RunLogger
from mlflow_sb3.tracking.snapshot_uploader import SNAPSHOT_DIR, SNAPSHOT_NAMES, SNAPSHOT_TAG
from tests.processes import wait_until


@pytest.fixture
def _fast_uploads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upload each snapshot at once."""
    monkeypatch.setattr(snapshot_uploader, "CHECK_INTERVAL", 0.05)
    monkeypatch.setattr(snapshot_uploader, "UPLOAD_INTERVAL", 0.0)


def write_snapshot(path: Path, *, step: int) -> str:
    """Write a snapshot that has only a header, and return its digest."""
    header = snapshot_header.SnapshotHeader(step=step, learned=False, context={}, n_envs=1)
    content = snapshot_header.FIRST_LINE + json.dumps(asdict(header)).encode() + b"\n"
    atomic_file.write_draft(path, lambda file: file.write(content))
    return atomic_file.append_digest(path)


@pytest.mark.usefixtures("store", "_fast_uploads")
def test_snapshots_are_uploaded_in_the_background_and_removed_at_the_end(tmp_path: Path) -> None:
    client, tag = MlflowClient(), f"{SNAPSHOT_TAG}{SNAPSHOT_NAMES[0]}"
    with (
        mlflow.start_run() as run,
        RunLogger(run.info.run_id, tmp_path / "run") as run_logger,
    ):
        path = tmp_path / "run" / SNAPSHOT_DIR / SNAPSHOT_NAMES[0]
        digest = write_snapshot(path, step=7)
        run_logger.offer_snapshot(path)
        wait_until(lambda: tag in client.get_run(run.info.run_id).data.tags)
        value = client.get_run(run.info.run_id).data.tags[tag]
        uploaded = client.list_artifacts(run.info.run_id, SNAPSHOT_DIR)

    about = json.loads(value)
    assert FileTrust().is_trusted(digest, about.pop("signature"))
    assert about == {"step": 7, "learned": False, "digest": digest}
    assert [file.path for file in uploaded] == ["snapshots/0.snapshot"]
    assert client.list_artifacts(run.info.run_id) == []
    assert tag not in client.get_run(run.info.run_id).data.tags


@pytest.mark.usefixtures("store", "_fast_uploads")
def test_the_end_of_a_run_does_not_wait_for_an_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_uploader, "OBSOLETE_UPLOAD_TIMEOUT", 0.1)
    path = tmp_path / "endless"
    os.mkfifo(path)  # reading it blocks until another process opens it for writing
    with mlflow.start_run() as run:
        with RunLogger(run.info.run_id, tmp_path / "run", delivery_timeout=1) as run_logger:
            run_logger.offer_snapshot(path)
            wait_until(lambda: list(tmp_path.glob("upload-*")))
            run_logger.log_metrics([MetricPoint("a", 1.0, 5, 1)])
        stored = mlflow.get_run(run.info.run_id)
        path.open("wb").close()

    assert (stored.info.status, stored.data.metrics) == ("FINISHED", {"a": 1.0})


@pytest.mark.usefixtures("store", "_fast_uploads")
def test_a_failed_upload_does_not_stop_the_delivery_of_metrics(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "run" / SNAPSHOT_DIR / SNAPSHOT_NAMES[0]
    with (
        mlflow.start_run() as run,
        RunLogger(run.info.run_id, tmp_path / "run") as run_logger,
    ):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"mlflow-sb3 snapshot\n{}\n")
        run_logger.offer_snapshot(path)
        wait_until(lambda: caplog.text.count("0.snapshot is incomplete") > 1)
        run_logger.log_metrics([MetricPoint("a", 1.0, 5, 1)])
        wait_until(
            lambda: mlflow.get_run(run.info.run_id).data.metrics,
            describe_failure=lambda: "no metric was delivered after the failed upload",
        )


@pytest.mark.usefixtures("store")
def test_two_uploads_use_two_names(tmp_path: Path) -> None:
    client = MlflowClient()
    with mlflow.start_run() as run:
        uploader = snapshot_uploader.SnapshotUploader(client, run.info.run_id, trust=FileTrust())
        uploader.start()
        path = tmp_path / SNAPSHOT_NAMES[0]
        for step in (1, 2):
            write_snapshot(path, step=step)
            uploader.offer(path)
            assert uploader.upload_last()

    tags = client.get_run(run.info.run_id).data.tags
    assert [json.loads(tags[f"{SNAPSHOT_TAG}{name}"])["step"] for name in SNAPSHOT_NAMES] == [1, 2]
