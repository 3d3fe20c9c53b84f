"""Tests of the step log_model."""

from __future__ import annotations

import re

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_sb3.cli.evaluate import evaluate
from mlflow_sb3.cli.log_model import log_model
from mlflow_sb3.cli.train import train
from mlflow_sb3.registry.model_version import Version
from tests.cli.commands import TINY_TRAINING, assert_fails, invoke, succeed
from tests.conftest import Keys

UNKNOWN_RUN = ["--run-id", "0" * 32]


def test_the_model_is_logged_to_the_training_run(champion: Version) -> None:
    logged = mlflow.get_logged_model(champion.model_id)

    assert champion.run_id == logged.source_run_id
    assert logged.params["sb3/algo"] == "ppo"
    assert mlflow.get_run(str(champion.run_id)).data.params["sb3/env"] == "CartPole-v1"


@pytest.mark.train
@pytest.mark.usefixtures("store")
def test_only_the_right_public_key_accepts_a_signed_version(keys: Keys, other_keys: Keys) -> None:
    trained = succeed(train, *TINY_TRAINING)

    signed = invoke(log_model, "--run-id", trained.info.run_id, "--signing-key", str(keys.private))
    unsigned = invoke(log_model, "--run-id", trained.info.run_id)

    def evaluate_with_key(number: str, public_key: object) -> list[str]:
        model = ["--model-name", "cartpole-v1-ppo", "--version", number, "--episodes", "1"]
        return [*model, "--public-key", str(public_key)]

    line = r"Registered cartpole-v1-ppo/1 as the challenger, digest [0-9a-f]{64}, signed\n"
    assert re.search(line, signed.stdout)
    assert unsigned.stdout.endswith(", not signed\n")
    succeed(evaluate, *evaluate_with_key("1", keys.public))
    other_key = invoke(evaluate, *evaluate_with_key("1", other_keys.public))
    assert_fails(other_key, 1, "another key signed the version")
    no_signature = invoke(evaluate, *evaluate_with_key("2", keys.public))
    assert_fails(no_signature, 1, "has no tag mlflow_sb3.signature")
    no_file = invoke(evaluate, *evaluate_with_key("1", "no.pem"))
    assert_fails(no_file, 1, "'no.pem'")


@pytest.mark.usefixtures("store")
def test_an_unusable_signing_key_is_refused_before_the_run_is_read(keys: Keys) -> None:
    missing = invoke(log_model, *UNKNOWN_RUN, "--signing-key", "no.pem")
    assert_fails(missing, 1, "'no.pem'")
    public = invoke(log_model, *UNKNOWN_RUN, "--signing-key", str(keys.public))
    assert_fails(public, 1, "is a public key")


@pytest.mark.usefixtures("store")
def test_a_run_without_an_agent_is_refused() -> None:
    with mlflow.start_run() as run:
        pass

    assert_fails(invoke(log_model, "--run-id", run.info.run_id), 1, "has no trained agent")
    assert MlflowClient().search_registered_models() == []
    assert mlflow.search_logged_models(output_format="list") == []


@pytest.mark.usefixtures("store")
def test_an_unknown_run_is_refused() -> None:
    assert_fails(invoke(log_model, *UNKNOWN_RUN), 1, "not found")


@pytest.mark.usefixtures("store")
def test_an_invalid_model_name_is_refused_before_the_run_is_read() -> None:
    result = invoke(log_model, *UNKNOWN_RUN, "--model-name", "a:b")

    assert_fails(result, 1, "'a:b' is not a valid name for a registered model")
