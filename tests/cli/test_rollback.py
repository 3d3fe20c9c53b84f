"""Tests of the step rollback."""

from __future__ import annotations

import pytest

from mlflow_sb3.cli.log_model import log_model
from mlflow_sb3.cli.promote import promote
from mlflow_sb3.cli.rollback import rollback
from mlflow_sb3.registry import versions
from mlflow_sb3.registry.model_version import Version
from tests.cli.commands import assert_fails, invoke, succeed


def test_a_rollback_restores_the_previous_champion(champion: Version) -> None:
    succeed(log_model, "--run-id", str(champion.run_id))
    succeed(promote, "--model-name", champion.name, "--rule", "force", "--reason", "a change")

    result = invoke(rollback, "--model-name", champion.name, "--reason", "it fell over")

    assert result.exit_code == 0, result.output
    assert "rollback: cartpole-v1-ppo/1 is the champion again" in result.output
    assert "it fell over" in result.output
    assert versions.find_version(champion.name, alias="champion") == champion
    again = invoke(rollback, "--model-name", champion.name)
    assert_fails(again, 1, "No version of cartpole-v1-ppo was champion before version 1")


@pytest.mark.usefixtures("store")
def test_an_unknown_model_cannot_be_rolled_back() -> None:
    result = invoke(rollback, "--model-name", "nobody")

    assert_fails(result, 1, "Registered model 'nobody' does not exist")
