from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_sb3.tracking import atomic_file


def write_with_digest(path: Path, content: bytes) -> Path:
    """Write a file with its digest at the end, and return the path."""
    atomic_file.write_draft(path, lambda file: file.write(content))
    atomic_file.append_digest(path)
    return path


def test_a_file_cut_at_any_byte_has_no_valid_digest(tmp_path: Path) -> None:
    path = write_with_digest(tmp_path / "file", b"the state of a training")
    complete = path.read_bytes()
    assert atomic_file.has_valid_digest(path)

    for length in range(len(complete)):
        path.write_bytes(complete[:length])
        assert not atomic_file.has_valid_digest(path), length


def test_a_file_with_one_changed_byte_has_no_valid_digest(tmp_path: Path) -> None:
    path = write_with_digest(tmp_path / "file", b"the state of a training")
    complete = path.read_bytes()

    for i in range(len(complete)):
        path.write_bytes(complete[:i] + bytes([complete[i] ^ 1]) + complete[i + 1 :])
        assert not atomic_file.has_valid_digest(path), i


def test_the_digest_is_the_sha_256_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_file.write_draft(path, lambda file: file.write(b"content"))

    digest = atomic_file.append_digest(path)

    assert digest == "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
    assert atomic_file.read_valid_digest(path) == digest


def test_a_missing_file_has_no_digest(tmp_path: Path) -> None:
    assert atomic_file.read_valid_digest(tmp_path / "missing") is None


def test_a_draft_is_deleted_if_writing_it_fails(tmp_path: Path) -> None:
    def fail(file: object) -> None:
        raise TypeError(file)

    with pytest.raises(TypeError, match="draft"):
        atomic_file.write_draft(tmp_path / "draft", fail)

    assert list(tmp_path.iterdir()) == []


def test_write_file_replaces_the_content_and_leaves_no_draft(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    atomic_file.write_file(folder / "file", b"one")
    atomic_file.write_file(folder / "file", b"two")

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"file": b"two"}
