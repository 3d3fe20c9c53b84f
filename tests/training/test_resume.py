from __future__ import annotations

import shutil
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_sb3.runs import state_dir
from mlflow_sb3.tracking import atomic_file, snapshot_uploader
from mlflow_sb3.tracking.file_trust import FileTrust
from mlflow_sb3.tracking.journal import Journal
from mlflow_sb3.tracking.snapshot_uploader import SNAPSHOT_DIR, SNAPSHOT_NAMES
from mlflow_sb3.training import resume
from mlflow_sb3.training.resume import RESUMED_FROM_TAG
from tests.training.interrupted_runs import make_interrupted_run


@pytest.mark.usefixtures("store")
def test_a_run_without_a_snapshot_uses_the_snapshot_of_the_run_that_it_resumed() -> None:
    first, second = make_interrupted_run(), make_interrupted_run(has_snapshot=False)
    MlflowClient().set_tag(second, RESUMED_FROM_TAG, first)

    with resume.find_snapshot(second) as resume_point:
        assert (resume_point.run_id, resume_point.header.step) == (first, 32)


@pytest.mark.usefixtures("store")
def test_an_uploaded_snapshot_with_other_content_is_not_used(tmp_path: Path) -> None:
    run_id = make_interrupted_run()
    for path in (state_dir.get_run_dir(run_id) / SNAPSHOT_DIR).glob("*.snapshot"):
        content = path.read_bytes()
        path.unlink()
        (tmp_path / path.name).write_bytes(content[:-40] + b"\x00" * 8 + content[-32:])
        MlflowClient().log_artifact(run_id, str(tmp_path / path.name), SNAPSHOT_DIR)

    with (
        pytest.raises(mlflow.MlflowException, match="has no complete snapshot"),
        resume.find_snapshot(run_id),
    ):
        pass


@pytest.mark.usefixtures("store")
def test_a_failed_download_of_the_only_snapshot_asks_to_resume_later(tmp_path: Path) -> None:
    run_id = make_interrupted_run()
    shutil.rmtree(state_dir.get_run_dir(run_id))
    moved = (tmp_path / "artifacts").rename(tmp_path / "moved")

    with (
        pytest.raises(mlflow.MlflowException, match=r"cannot be downloaded: .*\. Resume when"),
        resume.find_snapshot(run_id),
    ):
        pass
    moved.rename(tmp_path / "artifacts")

    with resume.find_snapshot(run_id) as resume_point:
        assert resume_point.header.step == 32


@pytest.mark.usefixtures("store")
def test_the_older_snapshot_is_used_if_the_newer_is_truncated(tmp_path: Path) -> None:
    run_id = make_interrupted_run()
    snapshot_uploader.remove_snapshots(MlflowClient(), run_id)
    folder = state_dir.get_run_dir(run_id) / SNAPSHOT_DIR
    older_content = (folder / SNAPSHOT_NAMES[0]).read_bytes()
    newer = tmp_path / "newer"
    newer.write_bytes(older_content[:-32].replace(b'"step": 32', b'"step": 64', 1))
    atomic_file.append_digest(newer)
    content = newer.read_bytes()
    lengths = [
        *range(0, len(content), len(content) // 20),
        content.index(b"\n") + 1,
        content.index(b"}\n") + 2,
        len(content) - 1,
    ]

    def find_step() -> int:
        with resume.find_snapshot(run_id) as resume_point:
            return resume_point.header.step

    (folder / SNAPSHOT_NAMES[1]).write_bytes(content)
    assert find_step() == 64
    for length in lengths:
        (folder / SNAPSHOT_NAMES[1]).write_bytes(content[:length])
        assert find_step() == 32, length
    (folder / SNAPSHOT_NAMES[0]).unlink()
    assert not resume.has_trusted_snapshot(mlflow.get_run(run_id), None, FileTrust())


@pytest.mark.usefixtures("store")
def test_a_run_can_be_resumed_after_its_server_has_moved(store: str) -> None:
    run_id = make_interrupted_run()
    journal = Journal.reopen(state_dir.get_run_dir(run_id))
    journal.append(tags={"late": "yes"})
    journal.close()
    run_json = state_dir.get_run_dir(run_id) / "run.json"
    run_json.write_text(run_json.read_text().replace(store, "http://127.0.0.1:9"))

    with resume.find_snapshot(run_id) as resume_point:
        assert resume_point.header.step == 32

    assert mlflow.get_run(run_id).data.tags["late"] == "yes"


def test_the_resume_command_keeps_the_environment_that_mlflow_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", f"/home/ann/.mlflow/envs/mlflow-{'0a' * 20}")

    command = resume.format_resume_command("id", tmp_path)

    assert command == f"mlflow run . -e train -P resume=id -P state_folder={tmp_path}"


def test_the_resume_command_names_a_state_folder_that_is_not_the_default(tmp_path: Path) -> None:
    command = "mlflow run . -e train -P resume=id --env-manager local"

    assert resume.format_resume_command("id", state_dir.get_state_dir()) == command
    assert resume.format_resume_command("id", tmp_path) == f"{command} -P state_folder={tmp_path}"
    assert resume.format_resume_command("id", Path("/a b")) == f"{command} -P state_folder='/a b'"


@pytest.mark.usefixtures("store")
def test_the_states_of_all_resumed_runs_are_deleted() -> None:
    first, second = make_interrupted_run(), make_interrupted_run()
    assert MlflowClient().list_artifacts(first, SNAPSHOT_DIR)

    resume.delete_training_state([second, first])

    for run_id in (first, second):
        assert MlflowClient().list_artifacts(run_id, SNAPSHOT_DIR) == []
        assert not state_dir.get_run_dir(run_id).exists()
        assert not resume.has_trusted_snapshot(mlflow.get_run(run_id), None, FileTrust())


@pytest.mark.usefixtures("store")
def test_deleting_the_state_of_an_unknown_run_is_no_error(tmp_path: Path) -> None:
    folder = tmp_path / "state_folder" / ("0" * 32)
    folder.mkdir(parents=True)

    resume.delete_training_state([folder.name], str(folder.parent))

    assert not folder.exists()


@pytest.mark.usefixtures("store")
def test_a_finished_training_is_delivered_and_not_resumed() -> None:
    run_id = make_interrupted_run()
    MlflowClient().set_terminated(run_id, "KILLED")
    journal = Journal.reopen(state_dir.get_run_dir(run_id))
    journal.append(status="FINISHED", time=1)
    journal.close()

    with (
        pytest.raises(mlflow.MlflowException, match="has finished, so there is nothing to"),
        resume.find_snapshot(run_id),
    ):
        pass

    assert mlflow.get_run(run_id).info.status == "FINISHED"
