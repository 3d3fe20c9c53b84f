from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from mlflow_sb3.training import provenance, reproduce
from mlflow_sb3.training.provenance import POLICY_DIGEST_TAG
from mlflow_sb3.training.training_record import TRAINING_JSON, PolicyDigests, TrainingRecord
from tests import ROOT
from tests.training.interrupted_runs import CONFIG

RECORD = TrainingRecord(CONFIG, provenance.collect_facts(1), PolicyDigests(kept="a", last="b"))


def run_git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=A", "-c", "user.email=a@example.com", *arguments]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def log_training(record: TrainingRecord) -> str:
    with mlflow.start_run(tags={POLICY_DIGEST_TAG: record.policy.kept}) as run:
        mlflow.log_dict(record.to_json(), TRAINING_JSON)
    return str(run.info.run_id)


def test_the_project_folder_has_the_mlproject_file() -> None:
    assert reproduce.PROJECT == ROOT
    assert (reproduce.PROJECT / "MLproject").exists()


@pytest.mark.parametrize("subfolder", ["", "agents/sb3"])
def test_a_commit_is_checked_out_without_changing_the_working_tree(
    subfolder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "repository" / subfolder
    project.mkdir(parents=True)
    (project / "MLproject").write_text("name: before")
    run_git(project, "init", "--quiet", str(tmp_path / "repository"))
    run_git(project, "add", ".")
    run_git(project, "commit", "--quiet", "--message", "a")
    (project / "MLproject").write_text("name: after")
    monkeypatch.setattr(reproduce, "PROJECT", project)

    with reproduce.checkout_commit(run_git(project, "rev-parse", "HEAD")) as folder:
        content = (folder / "MLproject").read_text()

    assert content == "name: before"
    assert (project / "MLproject").read_text() == "name: after"
    assert len(run_git(project, "worktree", "list").splitlines()) == 1


def test_a_run_without_a_commit_is_rejected() -> None:
    with (
        pytest.raises(MlflowException, match="has no commit, because its code was not in a git"),
        reproduce.checkout_commit(None),
    ):
        pass


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(("last", "is_identical"), [("b", True), ("c", False)])
def test_weights_are_identical_if_both_digests_are(last: str, *, is_identical: bool) -> None:
    run_id = log_training(RECORD)
    new_run_id = log_training(replace(RECORD, policy=PolicyDigests(kept="a", last=last)))

    reproduction = reproduce.compare_training(mlflow.get_run(run_id), RECORD, new_run_id)

    assert reproduction.is_identical == is_identical
    assert reproduction.differences == []


def test_a_commit_that_only_a_fork_has_is_refused_in_a_partial_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git fetches any commit by its id from the remote of a partial clone."""
    origin = tmp_path / "origin"
    origin.mkdir()
    run_git(origin, "init", "--quiet")
    run_git(origin, "config", "uploadpack.allowFilter", "true")
    run_git(origin, "config", "uploadpack.allowAnySHA1InWant", "true")
    run_git(origin, "commit", "--quiet", "--allow-empty", "--message", "a")
    known = run_git(origin, "rev-parse", "HEAD")
    tree = run_git(origin, "write-tree")
    foreign = run_git(origin, "commit-tree", tree, "-m", "of a fork")
    run_git(tmp_path, "clone", "--quiet", "--filter=blob:none", f"file://{origin}", "clone")
    monkeypatch.setattr(reproduce, "PROJECT", tmp_path / "clone")

    with (
        pytest.raises(MlflowException, match="is on no branch and no tag"),
        reproduce.checkout_commit(foreign),
    ):
        pass
    with reproduce.checkout_commit(known) as folder:
        assert folder.exists()
