"""Run the steps with environments that a function makes."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

import mlflow_sb3
from mlflow_sb3.algorithms import builder
from mlflow_sb3.cli.evaluate import evaluate
from mlflow_sb3.cli.log_model import log_model
from mlflow_sb3.cli.promote import promote
from mlflow_sb3.cli.train import train
from mlflow_sb3.envs import entry_points, env_spec
from mlflow_sb3.promotion import promotion_run
from mlflow_sb3.training.provenance import POLICY_DIGEST_TAG
from tests.cli.commands import assert_fails, invoke, list_artifacts, succeed

WALKS = "tests.vec_environments:make_walks"
TRAIN = (
    *("--env", WALKS, "--preset", "none", "--algo", "ppo", "--timesteps", "2048"),
    *("--env-kwargs", '{"failure": 0.1}', "--selection", "best", "--eval-freq", "512"),
    *("--hyperparams", '{"n_envs": 8, "n_steps": 32, "batch_size": 64, "learning_rate": 0.003}'),
)
pytestmark = pytest.mark.usefixtures("store")


@pytest.mark.train
def test_environments_of_a_function_go_through_all_steps() -> None:
    trained = succeed(train, *TRAIN)
    succeed(log_model, "--run-id", trained.info.run_id, "--model-name", "walks")
    promoted = succeed(promote, "--model-name", "walks", "--version", "1")
    run = succeed(evaluate, "--model-name", "walks", "--version", "1", "--episodes", "50")
    replayed = succeed(promote, "--replay", promoted.info.run_id)

    assert promoted.data.tags["mlflow_sb3.verdict"] == "promote"
    record = promotion_run.load_record(promoted.info.run_id)
    assert record.evidence is not None
    assert not record.evidence.is_paired
    assert "over 400 episodes each, without common seeds" in record.reason
    version = MlflowClient().get_model_version_by_alias("walks", "champion")
    assert "| 400 episodes each | walks/1 | a uniform random policy |" in str(version.description)
    assert promoted.data.metrics["promotion/challenger_success_rate"] > 0.9
    assert run.data.metrics["evaluation/episodes"] == 50
    assert run.data.metrics["evaluation/success_rate"] > 0.9
    assert "evaluation/returns.png" in list_artifacts(run, "evaluation")
    assert replayed.info.status == "FINISHED"


@pytest.mark.train
def test_the_same_seed_trains_the_same_agent_in_environments_of_a_function() -> None:
    first, again, other = (succeed(train, *TRAIN, "--seed", seed) for seed in "112")

    digests = [run.data.tags[POLICY_DIGEST_TAG] for run in (first, again, other)]
    assert digests[0] == digests[1] != digests[2]


def test_wrappers_are_refused_with_one_line() -> None:
    result = invoke(train, *TRAIN, "--wrappers", '["gymnasium.wrappers:FlattenObservation"]')

    assert_fails(result, 1, f"The environments of the function {WALKS} cannot have the wrappers")


def test_an_algorithm_that_learned_in_them_is_logged_with_their_description(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(entry_points.TRUSTED_MODULES, "tests.vec_environments")
    walks = env_spec.compose_spec(WALKS)
    model = builder.build_algorithm(
        "ppo", walks, {"n_envs": 4, "n_steps": 8, "batch_size": 32}, seed=0
    ).learn(32)

    mlflow_sb3.save_model(model, tmp_path / "model")

    policy = mlflow_sb3.load_policy(str(tmp_path / "model"))
    assert policy.environment is not None
    assert json.loads(policy.environment) == json.loads(walks)
    assert policy.predict(np.zeros((3, 2), np.float32))[0].shape == (3,)


def test_each_environment_has_the_spec_of_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(entry_points.TRUSTED_MODULES, "tests.vec_environments")
    walks = env_spec.compose_spec(WALKS)

    vec_env = builder.build_vec_env(walks, {"n_envs": 3})

    assert [spec.id for spec in vec_env.get_attr("spec")] == [WALKS] * 3


def test_normalize_wraps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(entry_points.TRUSTED_MODULES, "tests.vec_environments")
    hyperparams = {"n_envs": 4, "n_steps": 8, "batch_size": 32, "normalize": True}
    walks = env_spec.compose_spec(WALKS)

    model = builder.build_algorithm("ppo", walks, hyperparams, seed=0).learn(32)
    mlflow_sb3.save_model(model, tmp_path / "model")

    observations = np.arange(6, dtype=np.float32).reshape(3, 2)
    vec_normalize = model.get_vec_normalize_env()
    assert vec_normalize is not None
    expected, _ = model.predict(vec_normalize.normalize_obs(observations), deterministic=True)
    actions, _ = mlflow_sb3.load_policy(str(tmp_path / "model")).predict(observations)
    assert actions.tolist() == expected.tolist()
    served = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    assert served.predict(observations.astype(float)).tolist() == expected.tolist()
