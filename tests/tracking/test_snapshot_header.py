from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from mlflow_sb3.tracking.snapshot_header import (
    FIRST_LINE,
    SNAPSHOT_SCHEMA,
    SnapshotHeader,
    parse_header,
    read_header,
)

HEADER = SnapshotHeader(step=7, learned=False, context={"recipe": {"algo": "ppo"}}, n_envs=2)


def write_snapshot(path: Path, **changes: object) -> Path:
    """Write a snapshot whose header is ``HEADER`` with changes, and return the path."""
    header = json.dumps(asdict(HEADER) | changes).encode()
    path.write_bytes(FIRST_LINE + header + b"\npickle")
    return path


def test_a_stored_header_is_read_back(tmp_path: Path) -> None:
    assert read_header(write_snapshot(tmp_path / "0.snapshot")) == HEADER


def test_the_pickle_follows_the_header(tmp_path: Path) -> None:
    path = write_snapshot(tmp_path / "0.snapshot")

    with path.open("rb") as file:
        parse_header(file, path)
        assert file.read() == b"pickle"


def test_another_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("something else\n")

    with pytest.raises(MlflowException, match=r"file is not a training snapshot\. Use a file"):
        read_header(tmp_path / "file")


@pytest.mark.parametrize("header", [b"{", b"[]", b"{}", b'{"schema": 4, "unknown": 1}'])
def test_a_damaged_header_is_rejected(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "0.snapshot"
    path.write_bytes(FIRST_LINE + header + b"\npickle")

    with pytest.raises(MlflowException, match=r"header of snapshot .* is damaged .* Resume from"):
        read_header(path)


def test_a_snapshot_of_another_schema_is_rejected(tmp_path: Path) -> None:
    path = write_snapshot(tmp_path / "0.snapshot", schema=1)

    with pytest.raises(
        MlflowException,
        match=rf"0\.snapshot has schema 1, but .* reads schema {SNAPSHOT_SCHEMA}\. Resume with",
    ):
        read_header(path)
