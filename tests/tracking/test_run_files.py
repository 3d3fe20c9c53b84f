from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from mlflow_sb3.tracking.run_files import RunFiles
from mlflow_sb3.tracking.snapshot_uploader import SNAPSHOT_DIR, SNAPSHOT_NAMES


def test_a_file_is_written_to_the_folder_of_the_run(tmp_path: Path) -> None:
    files = RunFiles(tmp_path / "run")

    path = files.write(Path("agent/agent.zip"), b"content", latest_snapshot=None)

    assert path == Path("files/agent/agent.zip")
    assert (tmp_path / "run" / path).read_bytes() == b"content"


def test_a_full_disk_is_avoided_by_the_folder_for_temporary_files(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    files = RunFiles(small_disk / "run")

    path = files.write(Path("agent/agent.zip"), bytes(2_000_000), latest_snapshot=None)

    assert path.is_relative_to(tmp_path)
    assert path.stat().st_size == 2_000_000
    files.remove()
    assert not path.exists()


def test_the_older_snapshot_is_deleted_if_all_disks_are_full(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk / "tmp"))
    (small_disk / "tmp").mkdir()
    older, latest = (small_disk / "run" / SNAPSHOT_DIR / name for name in SNAPSHOT_NAMES)
    older.parent.mkdir(parents=True)
    for path in (older, latest):
        path.write_bytes(bytes(400_000))
    files = RunFiles(small_disk / "run")

    written = files.write(Path("agent/agent.zip"), bytes(300_000), latest_snapshot=latest)
    with pytest.raises(OSError, match="No space left"):
        files.write(Path("agent/more.zip"), bytes(600_000), latest_snapshot=latest)

    assert (small_disk / "run" / written).stat().st_size == 300_000
    assert (older.exists(), latest.exists()) == (False, True)
