from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mlflow_sb3.training import reproduce


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=A", "-c", "user.email=a@example.com", *arguments]
    return subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.parametrize("subfolder", ["", "agents/sb3"])
def test_a_commit_is_checked_out_beside_the_working_folder_as_far_down_as_the_project_lies(
    subfolder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "repository" / subfolder
    project.mkdir(parents=True)
    (project / "MLproject").write_text("name: before")
    git(project, "init", "--quiet", str(tmp_path / "repository"))
    git(project, "add", ".")
    git(project, "commit", "--quiet", "--message", "a")
    (project / "MLproject").write_text("name: after")
    monkeypatch.setattr(reproduce, "PROJECT", project)

    with reproduce.checked_out(git(project, "rev-parse", "HEAD")) as folder:
        found = (folder / "MLproject").read_text()

    assert found == "name: before"
    assert (project / "MLproject").read_text() == "name: after"
    assert len(git(project, "worktree", "list").splitlines()) == 1
