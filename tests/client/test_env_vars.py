from __future__ import annotations

import os

import pytest

from mlflow_sb3.client import env_vars


def test_variables_are_set_for_the_time_of_a_call_and_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SETTINGS_OLD", "before")
    monkeypatch.delenv("SETTINGS_NEW", raising=False)

    with env_vars.temporary_env({"SETTINGS_OLD": "now", "SETTINGS_NEW": "now"}):
        inside = os.environ["SETTINGS_OLD"], os.environ["SETTINGS_NEW"]

    assert inside == ("now", "now")
    assert os.environ["SETTINGS_OLD"] == "before"
    assert "SETTINGS_NEW" not in os.environ


def test_variables_are_put_back_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETTINGS_OLD", "before")

    with (
        pytest.raises(RuntimeError, match="inside"),
        env_vars.temporary_env({"SETTINGS_OLD": "now", "SETTINGS_NEW": "now"}),
    ):
        raise RuntimeError("inside")

    assert os.environ["SETTINGS_OLD"] == "before"
    assert "SETTINGS_NEW" not in os.environ
