from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mlflow_sb3.runs import git as git_module
from mlflow_sb3.runs.git import hash_uncommitted_changes, run_git

LATIN_1 = "größer".encode("latin-1")
MLPROJECT = b"name: a\n" + 12 * b"\n" + b"entry_points: a\n"
SETTINGS = (
    ("color.ui", "always"),
    ("color.diff", "always"),
    ("core.abbrev", "20"),
    ("core.quotePath", "false"),
    ("diff.context", "0"),
    ("diff.external", "false"),
    ("diff.interHunkContext", "20"),
    ("diff.latin.textconv", "wc -c <"),
    ("diff.mnemonicPrefix", "true"),
    ("diff.noprefix", "true"),
    ("diff.relative", "true"),
    ("diff.renames", "false"),
    ("diff.suppressBlankEmpty", "true"),
)
"""Settings that change the output of ``git diff``."""


def call_git(folder: Path, *arguments: str) -> None:
    author = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
    subprocess.run(["git", *author, *arguments], cwd=folder, check=True)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in a folder of a git repository, with a file in Latin-1."""
    folder = tmp_path / "repository" / "project"
    folder.mkdir(parents=True)
    (folder.parent / "outside").write_text("a")
    (folder / "MLproject").write_bytes(MLPROJECT)
    (folder / "text").write_bytes(LATIN_1)
    (folder / ".gitattributes").write_text("MLproject diff=latin\n")
    call_git(folder.parent, "init", "--quiet")
    call_git(folder.parent, "add", ".")
    call_git(folder, "commit", "--quiet", "--message", "a")
    monkeypatch.setattr(git_module, "__file__", str(folder / "mlflow_sb3/runs/git.py"))
    return folder


def test_different_changes_of_a_file_in_any_encoding_have_different_digests(
    project: Path,
) -> None:
    digests = [hash_uncommitted_changes()]
    for ending in (b"a", b"b"):
        (project / "text").write_bytes(LATIN_1 + ending)
        digests.append(hash_uncommitted_changes())

    assert len(set(digests)) == 3


def test_the_digest_does_not_depend_on_the_settings_of_git(project: Path) -> None:
    (project / "text").rename(project / "größer")
    call_git(project, "add", ".")
    (project / "MLproject").write_bytes(MLPROJECT.replace(b"a", b"b"))
    (project.parent / "outside").write_text("b")
    before = hash_uncommitted_changes()

    for key, value in SETTINGS:
        call_git(project, "config", key, value)
        assert hash_uncommitted_changes() == before, key


def test_git_output_has_no_surrounding_whitespace(project: Path) -> None:
    commit = run_git("rev-parse", "HEAD")

    assert commit is not None
    assert len(commit) == 40
    assert (project / "MLproject").exists()


@pytest.mark.usefixtures("project")
def test_a_failing_command_has_no_output() -> None:
    assert run_git("rev-parse", "no-such-branch") is None


def test_a_package_that_is_not_part_of_a_clone_has_no_git_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_module, "__file__", str(tmp_path / "mlflow_sb3/runs/git.py"))

    assert run_git("rev-parse", "HEAD") is None
