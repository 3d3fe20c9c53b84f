"""Tests of the temporary object store."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy.server import store


@pytest.mark.process
def test_the_store_returns_the_objects_of_its_bucket(tmp_path: Path) -> None:
    with store.run_store(tmp_path / "store.log", dict(os.environ)) as running:
        running.client().put_object(Bucket=store.BUCKET, Key="folder/file", Body=b"content")

        assert running.read_objects() == {"folder/file": b"content"}
