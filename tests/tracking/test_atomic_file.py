from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_sb3.tracking import atomic_file


def sealed(folder: Path, content: bytes) -> Path:
    path = folder / "file"
    atomic_file.write_draft(path, lambda file: file.write(content))
    atomic_file.seal(path)
    return path


def test_a_sealed_file_is_told_from_one_that_was_cut_short_at_any_byte(tmp_path: Path) -> None:
    path = sealed(tmp_path, b"the state of a training")
    whole = path.read_bytes()
    assert atomic_file.is_sealed(path)

    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert not atomic_file.is_sealed(path), length


def test_a_sealed_file_is_told_from_one_of_which_any_byte_changed(tmp_path: Path) -> None:
    path = sealed(tmp_path, b"the state of a training")
    whole = path.read_bytes()

    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert not atomic_file.is_sealed(path), place


def test_the_seal_is_the_digest(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_file.write_draft(path, lambda file: file.write(b"content"))

    assert (
        atomic_file.seal(path)
        == atomic_file.seal_of(path)
        == "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
    )


def test_a_file_that_is_not_there_has_no_seal(tmp_path: Path) -> None:
    assert atomic_file.seal_of(tmp_path / "nothing") is None


def test_a_draft_that_cannot_be_filled_is_gone(tmp_path: Path) -> None:
    def fail(file: object) -> None:
        raise TypeError(file)

    with pytest.raises(TypeError, match="draft"):
        atomic_file.write_draft(tmp_path / "draft", fail)

    assert list(tmp_path.iterdir()) == []


def test_a_written_file_has_the_new_content_and_no_draft_beside_it(tmp_path: Path) -> None:
    atomic_file.write_file(tmp_path / "new" / "file", b"one")
    atomic_file.write_file(tmp_path / "new" / "file", b"two")

    assert [(path.name, path.read_bytes()) for path in (tmp_path / "new").iterdir()] == [
        ("file", b"two")
    ]
