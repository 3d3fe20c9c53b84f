from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from mlflow_sb3.registry.digest import hash_folder
from mlflow_sb3.registry.model_version import Version
from tests.registry.model_files import flip_bit, get_folder, list_files


def test_a_changed_bit_in_any_file_changes_the_digest(registered: Version, tmp_path: Path) -> None:
    folder = get_folder(registered)
    files = [file for file in list_files(registered) if (folder / file).stat().st_size]

    for file in files:
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        flip_bit(copy / file)
        assert hash_folder(copy) != registered.digest, file
        shutil.rmtree(copy)
    assert {Path("MLmodel"), Path("agent/policy.onnx")} <= set(files)
    assert any(file.is_relative_to("code/mlflow_sb3") for file in files)


def test_an_added_file_changes_the_digest(registered: Version) -> None:
    (get_folder(registered) / "code" / "more.py").write_text("")

    assert hash_folder(get_folder(registered)) != registered.digest


def test_a_renamed_file_changes_the_digest(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = hash_folder(tmp_path)

    (tmp_path / "a").rename(tmp_path / "b")

    assert hash_folder(tmp_path) != before


def test_the_file_that_mlflow_adds_to_a_download_does_not_change_the_digest(
    tmp_path: Path,
) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {}")
    before = hash_folder(tmp_path)

    (tmp_path / "registered_model_meta").write_text("model_name: agent")

    assert hash_folder(tmp_path) == before


@pytest.mark.parametrize("name", ["a {digest}\nb", "a\\nb"])
def test_a_file_name_cannot_look_like_two_lines(name: str, tmp_path: Path) -> None:
    honest, forged = tmp_path / "honest", tmp_path / "forged"
    for folder in (honest, forged):
        folder.mkdir()
    (honest / "a").write_text("1")
    (honest / "b").write_text("2")
    (forged / name.format(digest=hashlib.sha256(b"1").hexdigest())).write_text("2")

    assert hash_folder(honest) != hash_folder(forged)
