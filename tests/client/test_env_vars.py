from __future__ import annotations

import os

import pytest

from mlflow_sb3.client import env_vars


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set one of two environment variables."""
    monkeypatch.setenv("EXISTING", "before")
    monkeypatch.delenv("MISSING", raising=False)


def test_variables_are_set_in_the_context_and_restored_after_it() -> None:
    with env_vars.override_env({"EXISTING": "now", "MISSING": "now"}):
        inside = os.environ["EXISTING"], os.environ["MISSING"]

    assert inside == ("now", "now")
    assert os.environ["EXISTING"] == "before"
    assert "MISSING" not in os.environ


def test_variables_are_restored_after_an_error() -> None:
    with (
        pytest.raises(RuntimeError, match="inside"),
        env_vars.override_env({"EXISTING": "now", "MISSING": "now"}),
    ):
        raise RuntimeError("inside")

    assert os.environ["EXISTING"] == "before"
    assert "MISSING" not in os.environ
