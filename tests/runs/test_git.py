from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from mlflow_sb3.runs import git as git_module
from mlflow_sb3.runs.git import hash_uncommitted_changes
from mlflow_sb3.training import provenance
from mlflow_sb3.training.training_record import TrainingFacts

LATIN = "größer".encode("latin-1")
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


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=A", "-c", "user.email=a@example.com", *arguments],
        cwd=folder,
        check=True,
    )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a repository with a text in Latin-1, whose code the module is."""
    folder = tmp_path / "repository" / "project"
    folder.mkdir(parents=True)
    (folder.parent / "beside").write_text("a")
    for name, content in {
        "MLproject": MLPROJECT,
        "text": LATIN,
        ".gitattributes": b"MLproject diff=latin\n",
    }.items():
        (folder / name).write_bytes(content)
    git(folder.parent, "init", "--quiet")
    git(folder.parent, "add", ".")
    git(folder, "commit", "--quiet", "--message", "a")
    monkeypatch.setattr(git_module, "__file__", str(folder / "mlflow_sb3/runs/git.py"))
    return folder


def test_changes_of_a_text_in_any_encoding_have_a_digest(project: Path) -> None:
    before = hash_uncommitted_changes()

    digests = []
    for ending in (b"a", b"b"):
        (project / "text").write_bytes(LATIN + ending)
        digests.append(hash_uncommitted_changes())

    assert len({before, *digests}) == 3


def test_the_digest_of_changes_does_not_hang_on_the_settings_of_git(project: Path) -> None:
    (project / "text").rename(project / "größer")
    git(project, "add", ".")
    (project / "MLproject").write_bytes(MLPROJECT.replace(b"a", b"b"))
    (project.parent / "beside").write_text("b")
    before = hash_uncommitted_changes()

    for key, value in SETTINGS:
        git(project, "config", key, value)
        assert hash_uncommitted_changes() == before, key


def test_what_a_package_left_when_it_was_removed_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, rest = tmp_path / "whole-1.0.dist-info", tmp_path / "rest-1.0.dist-info"
    whole.mkdir()
    rest.mkdir()
    (whole / "METADATA").write_text("Name: whole\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)

    found = provenance.collect_facts(1)

    assert found.packages["whole"] == "1.0"
    assert None not in found.packages
    assert provenance.compare_facts(TrainingFacts.from_json(json.loads(json.dumps(found.to_json()))), found) == []
