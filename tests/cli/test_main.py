"""Tests of the checks that main makes before it trains."""

from __future__ import annotations

import mlflow
import pytest

from mlflow_sb3.cli.main import main
from tests.cli.commands import assert_fails, invoke


@pytest.mark.usefixtures("store")
def test_an_invalid_model_name_is_refused_before_any_step() -> None:
    result = invoke(main, "--model-name", "team/agent")

    assert_fails(result, 1, "'team/agent' is not a valid name for a registered model")
    children = mlflow.search_runs(
        filter_string="tags.mlflow.parentRunId != ''", output_format="list"
    )
    assert children == []


@pytest.mark.usefixtures("store")
def test_forbidden_unpickling_is_refused_before_any_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

    assert_fails(invoke(main), 1, "log_model, which reads the trained agent, would unpickle a file")
