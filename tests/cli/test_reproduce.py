"""Tests of the step reproduce. tests/project/test_reproduce.py repeats a training."""

from __future__ import annotations

import pytest

from mlflow_sb3.cli.reproduce import reproduce
from tests.cli.commands import assert_fails, invoke


@pytest.mark.usefixtures("store")
def test_an_unknown_run_is_refused() -> None:
    assert_fails(invoke(reproduce, "--run-id", "0" * 32), 1, "not found")
