from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

import mlflow_sb3
from mlflow_sb3.cli.evaluate import evaluate as evaluate_step
from mlflow_sb3.envs import env_spec
from mlflow_sb3.registry.model_version import DIGEST_TAG, VERSION_TAG, Version
from tests.cli.commands import list_artifacts, succeed
from tests.conftest import Keys
from tests.lifecycle.runs import get_model_metrics, list_runs, read_returns


def test_the_function_plays_the_episodes_of_the_step(levels: list[Version]) -> None:
    mlflow.end_run()
    options = ("--version", "5", "--episodes", "70", "--seed", "3")
    run = succeed(evaluate_step, "--model-name", "levels", *options)

    result = mlflow_sb3.evaluate("models:/levels/5", n_episodes=70, seed=3, progress_bar=False)

    assert result.returns.tolist() == read_returns(run.info.run_id, "evaluation/episodes.json")
    assert result.seeds.tolist() == mlflow_sb3.make_episode_seeds(70, seed=3)
    assert result.mean_return == run.data.metrics["evaluation/mean_return"]
    assert result.std_return == run.data.metrics["evaluation/std_return"]


def test_without_an_active_run_nothing_is_logged(registered: Version) -> None:
    runs = len(list_runs())

    result = mlflow_sb3.evaluate("models:/agent/1", n_episodes=2)

    assert result.run_id is None
    assert len(list_runs()) == runs
    assert get_model_metrics(registered.model_id) == {}


def test_the_active_run_gets_the_results_of_the_step(registered: Version) -> None:
    MlflowClient().set_registered_model_alias("agent", "staging", "1")
    with mlflow.start_run():
        result = mlflow_sb3.evaluate("models:/agent@staging", n_episodes=3)

    run = mlflow.get_run(str(result.run_id))
    assert (result.name, result.version) == ("agent", 1)
    assert run.data.tags[VERSION_TAG] == "agent/1"
    assert run.data.metrics["evaluation/episodes"] == 3
    paths = {"evaluation/episodes.json", "evaluation/returns.png"}
    assert list_artifacts(run, "evaluation") == paths
    assert get_model_metrics(registered.model_id) == run.data.metrics
    assert run.data.metrics["evaluation/mean_return"] == result.mean_return


def test_the_run_of_the_caller_keeps_its_name_and_description(registered: Version) -> None:
    with mlflow.start_run() as run:
        MlflowClient().set_tag(run.info.run_id, "mlflow.note.content", "my own note")
        mlflow_sb3.evaluate(registered.uri, n_episodes=2)

    after = mlflow.get_run(run.info.run_id)
    assert after.info.run_name == run.info.run_name
    assert after.data.tags["mlflow.note.content"] == "my own note"


def test_a_model_of_the_run_gets_no_metrics_of_another_agent(ppo: PPO, registered: Version) -> None:
    with mlflow.start_run():
        info = mlflow_sb3.log_model(ppo, name="other")
        mlflow_sb3.evaluate(registered.uri, n_episodes=2)
        short = gymnasium.make("CartPole-v1", max_episode_steps=7)
        mlflow_sb3.evaluate(f"models:/{info.model_id}", short, n_episodes=2)

    assert get_model_metrics(info.model_id) == {}
    assert get_model_metrics(registered.model_id)["evaluation/episodes"] == 2


@pytest.mark.parametrize("call", ["evaluate", "promote"])
def test_an_environment_of_another_model_calls_no_function(
    call: str, registered: Version, cartpole: str, tmp_path: Path
) -> None:
    spec = json.loads(cartpole) | {
        "entry_point": "os:mkdir",
        "kwargs": {"path": str(tmp_path / "made")},
    }
    function: Any = getattr(mlflow_sb3, call)
    arguments = (registered.uri,) if call == "evaluate" else ("agent", 1)

    with pytest.raises(MlflowException, match="os:mkdir is not"):
        function(*arguments, env=json.dumps(spec))

    assert not (tmp_path / "made").exists()
    assert "os" not in os.environ.get("MLFLOW_SB3_TRUSTED_MODULES", "")


@pytest.mark.usefixtures("registered")
def test_a_second_evaluation_in_a_run_replaces_the_first(store: str) -> None:
    with mlflow.start_run() as run:
        mlflow_sb3.evaluate("models:/agent/1", n_episodes=3)
        result = mlflow_sb3.evaluate("models:/agent/1", n_episodes=2, seed=1)

    table = mlflow.load_table("evaluation/episodes.json", run_ids=[run.info.run_id])
    assert table["return"].tolist() == result.returns.tolist()
    assert mlflow.get_run(run.info.run_id).data.metrics["evaluation/episodes"] == 2


@pytest.mark.usefixtures("registered")
def test_policies_and_algorithms_play_like_their_version(ppo: PPO) -> None:
    env = gymnasium.make("CartPole-v1")
    expected = mlflow_sb3.evaluate("models:/agent/1", n_episodes=5).returns.tolist()
    policy = mlflow_sb3.load_policy("models:/agent/1")
    served = mlflow.pyfunc.load_model("models:/agent/1")
    calls: list[tuple[Any, Any]] = [
        (policy, None),
        (policy, "CartPole-v1"),
        (policy, env),
        (served, None),
        (ppo, None),
        (ppo, env_spec.spec_to_json(env.spec)),
        (ppo, env),
        (ppo.policy, env),
    ]

    results = [mlflow_sb3.evaluate(model, where, n_episodes=5) for model, where in calls]

    assert [result.returns.tolist() for result in results] == [expected] * len(calls)
    assert {result.name for result in results} == {None}


def train_normalized() -> PPO:
    vec_env = VecNormalize(make_vec_env("CartPole-v1", seed=0))
    return PPO("MlpPolicy", vec_env, n_steps=256, seed=0, device="cpu").learn(1024)


def train_recurrent() -> RecurrentPPO:
    return RecurrentPPO("MlpLstmPolicy", "CartPole-v1", n_steps=64, seed=0, device="cpu").learn(64)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("train", [train_normalized, train_recurrent])
def test_an_algorithm_plays_like_its_logged_model(train: Callable[[], BaseAlgorithm]) -> None:
    model = train()
    with mlflow.start_run():
        info = mlflow_sb3.log_model(model, name="agent")

    logged = mlflow_sb3.evaluate(info.model_uri, n_episodes=20)
    in_memory = mlflow_sb3.evaluate(model, n_episodes=20)

    assert in_memory.returns.tolist() == logged.returns.tolist()
    assert len(set(logged.returns)) > 1


@pytest.mark.usefixtures("registered")
def test_an_environment_of_the_caller_stays_open() -> None:
    env = gymnasium.make("CartPole-v1", render_mode="rgb_array")

    mlflow_sb3.evaluate("models:/agent/1", env, n_episodes=1)

    assert env.render() is not None


def test_another_environment_leaves_the_metrics_of_the_model_alone(registered: Version) -> None:
    env = gymnasium.make("CartPole-v1", max_episode_steps=4)
    with mlflow.start_run() as run:
        result = mlflow_sb3.evaluate("models:/agent/1", env, n_episodes=3)

    assert result.returns.tolist() == [4.0, 4.0, 4.0]
    assert mlflow.get_run(run.info.run_id).data.metrics["evaluation/mean_return"] == 4
    assert get_model_metrics(registered.model_id) == {}


def test_an_unregistered_model_gets_the_metrics(store: str, ppo: PPO) -> None:
    with mlflow.start_run():
        info = mlflow_sb3.log_model(ppo, name="agent")
        result = mlflow_sb3.evaluate(info.model_uri, n_episodes=2)

    assert result.version is None
    assert get_model_metrics(info.model_id)["evaluation/mean_return"] == result.mean_return


def test_a_version_without_a_digest_is_refused(registered: Version) -> None:
    MlflowClient().delete_model_version_tag("agent", "1", DIGEST_TAG)

    with pytest.raises(MlflowException, match=r"agent/1 has no tag mlflow_sb3\.digest"):
        mlflow_sb3.evaluate("models:/agent/1", n_episodes=1)


def test_a_public_key_must_have_signed_the_version(signed: Version, other_keys: Keys) -> None:
    with pytest.raises(MlflowException, match="signature of model version agent/1 is not valid"):
        mlflow_sb3.evaluate("models:/agent/1", n_episodes=1, public_key=other_keys.public)


class Still:
    """A policy without an environment that never moves the cart to the left."""

    def predict(self, observation: Any, state: Any, *_: Any) -> tuple[Any, Any]:
        return np.ones(len(observation), np.int64), state


def test_any_object_with_predict_plays() -> None:
    result = mlflow_sb3.evaluate(Still(), "CartPole-v1", n_episodes=4)  # type: ignore[arg-type]

    assert result.returns.max() < 12
    assert repr(result).startswith("EvaluateResult(mean_return=")
    assert "returns=" not in repr(result)
    assert "\n" not in repr(result)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "models:/agent@hero"}, "agent has no alias 'hero'"),
        ({"model": "models:/agent/7"}, "agent has no version 7"),
        ({"model": "models:/nobody@champion"}, "Registered model 'nobody' does not exist"),
        ({"model": Still()}, "The agent has no environment to play in. Pass env"),
        ({"model": 7}, "model is a builtins.int. Pass a model URI"),
        ({"n_episodes": 0}, "n_episodes=0 is too small. Use 1 or more"),
        ({"seed": -1}, "seed=-1 is too small. Use 0 or more"),
        ({"env": 3}, "env is a builtins.int. Pass a Gymnasium id"),
        ({"env": "CartPoel-v1"}, "environment 'CartPoel-v1' cannot be made"),
        ({"env": "{}"}, "is no EnvSpec JSON"),
        ({"env": "MountainCar-v0"}, r"observation space Box.* the agent was trained with Box"),
        ({"model": Still(), "public_key": "key"}, "Public key 'key' cannot be read"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(MlflowException, match=message):
        mlflow_sb3.evaluate(**{"model": "models:/agent/1"} | arguments)


def test_an_algorithm_does_not_play_in_an_environment_with_other_spaces(ppo: PPO) -> None:
    env = gymnasium.make("MountainCar-v0")

    with pytest.raises(MlflowException, match="environment has the spaces Box"):
        mlflow_sb3.evaluate(ppo, env, n_episodes=1)


def test_a_public_key_needs_a_uri(ppo: PPO, keys: Keys) -> None:
    with pytest.raises(MlflowException, match="public_key is passed with a PPO, but only"):
        mlflow_sb3.evaluate(ppo, n_episodes=1, public_key=keys.public)


def test_more_episode_seeds_start_with_the_same_ones() -> None:
    seeds = mlflow_sb3.make_episode_seeds(20, seed=1)

    assert seeds[:5] == mlflow_sb3.make_episode_seeds(5, seed=1)
    assert seeds != mlflow_sb3.make_episode_seeds(20)
