from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from mlflow_sb3.runs import state_dir


@pytest.fixture
def unwritable_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of a user whose state folder cannot be created."""
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return temporary


def test_the_state_folder_is_in_xdg_state_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))

    assert state_dir.get_state_dir() == tmp_path / "xdg" / "mlflow-sb3"
    assert state_dir.get_run_dir("run") == tmp_path / "xdg" / "mlflow-sb3" / "run"


def test_the_state_folder_is_in_the_home_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))

    assert state_dir.get_state_dir().is_relative_to(tmp_path)


def test_a_chosen_folder_is_used_as_it_is() -> None:
    assert state_dir.get_run_dir("run", "chosen") == Path.cwd() / "chosen" / "run"


def test_a_private_temporary_folder_is_used_without_a_home(unwritable_home: Path) -> None:
    folder = state_dir.get_state_dir()

    assert folder == unwritable_home / f"mlflow-sb3-{os.getuid()}"
    assert folder.stat().st_mode & 0o077 == 0


def test_a_temporary_folder_that_others_can_write_to_is_refused(unwritable_home: Path) -> None:
    folder = unwritable_home / f"mlflow-sb3-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)

    with pytest.raises(PermissionError, match=r"Other users can read or write .*XDG_STATE_HOME"):
        state_dir.get_state_dir()


def test_the_old_state_of_a_run_without_a_snapshot_is_deleted(tmp_path: Path) -> None:
    run_id = "0" * 31
    for name in ("a", "b", "c", "d"):
        (tmp_path / (run_id + name)).mkdir()
        (tmp_path / (run_id + name) / "journal.jsonl").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / (run_id + "b") / "snapshots").mkdir()
    (tmp_path / (run_id + "b") / "snapshots" / "1.snapshot").touch()
    for path in [*tmp_path.rglob("*"), tmp_path / (run_id + "a")]:
        os.utime(path, (0, 0))
    (tmp_path / (run_id + "c") / "journal.jsonl").touch()
    (tmp_path / (run_id + "d")).touch()

    state_dir.delete_old_run_dirs("*.snapshot", tmp_path)

    kept = [path.name for path in sorted(tmp_path.iterdir())]
    assert kept == [run_id + "b", run_id + "c", run_id + "d", "other"]
