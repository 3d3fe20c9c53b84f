"""Tests of the private files of the trial server."""

from __future__ import annotations

from pathlib import Path

from deploy.server import private_files


def test_a_password_is_kept_until_another_password_is_chosen(tmp_path: Path) -> None:
    first = private_files.choose_password("alice", tmp_path, None)

    assert private_files.choose_password("alice", tmp_path, None) == first
    assert private_files.choose_password("alice", tmp_path, "chosen") == "chosen"
    assert private_files.choose_password("alice", tmp_path, None) == "chosen"


def test_only_the_owner_may_read_a_private_file(tmp_path: Path) -> None:
    private_files.write_private(tmp_path / "auth.ini", "secret")

    assert [path.name for path in tmp_path.iterdir()] == ["auth.ini"]
    assert (tmp_path / "auth.ini").stat().st_mode & 0o777 == 0o600
