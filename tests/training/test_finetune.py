from __future__ import annotations

import json
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from stable_baselines3 import DQN

import mlflow_sb3
from mlflow_sb3.algorithms import algorithms
from mlflow_sb3.envs import env_spec
from mlflow_sb3.flavor import vec_normalize
from mlflow_sb3.training import finetune, loop
from mlflow_sb3.training.finetune import BaseAgent

SMALL = {
    "learning_starts": 8,
    "buffer_size": 500,
    "batch_size": 8,
    "n_envs": 2,
    "exploration_fraction": 0.5,
}


@pytest.fixture(scope="module")
def learned(cartpole: str) -> DQN:
    model = algorithms.build("dqn", cartpole, SMALL, seed=0).learn(100)
    assert isinstance(model, DQN)
    return model


@pytest.fixture
def logged(store: str, learned: DQN) -> str:  # noqa: ARG001 a store to log to
    """The URI of a version that bears an alias."""
    mlflow_sb3.log_model(learned, name="agent", registered_model_name="agent")
    MlflowClient().set_registered_model_alias("agent", "champion", "1")
    return "models:/agent@champion"


def load(uri: str, description: str, **hyperparams: Any) -> BaseAgent:
    return finetune.load_base_agent(uri, "dqn", description, hyperparams, seed=1)


def test_training_goes_on_with_the_networks_the_optimizer_and_the_exploration(
    logged: str, learned: DQN, cartpole: str
) -> None:
    model = load(logged, cartpole).model

    assert isinstance(model, DQN)
    assert all(
        torch.equal(value, learned.policy.state_dict()[name])
        for name, value in model.policy.state_dict().items()
    )
    assert (
        model.policy.optimizer.state_dict()["state"].keys()
        == learned.policy.optimizer.state_dict()["state"].keys()
    )
    assert (model.num_timesteps, model.n_envs, model.exploration_rate) == (
        learned.num_timesteps,
        2,
        learned.exploration_rate,
    )

    trained = loop.train(cartpole, "dqn", timesteps=100, ancestor=model)

    assert trained.model is model
    assert max(candidate.step for candidate in trained.candidates) == learned.num_timesteps + 104
    assert min(candidate.step for candidate in trained.candidates) > learned.num_timesteps


def test_hyperparameters_can_change_on_the_way(logged: str, cartpole: str) -> None:
    model = load(logged, cartpole, learning_rate=1e-5, gamma=0.5, n_envs=1).model

    assert isinstance(model, DQN)
    assert (model.lr_schedule(0.3), model.gamma, model.n_envs) == (1e-5, 0.5, 1)


def test_the_lineage_names_the_model(logged: str, cartpole: str) -> None:
    before = load(logged, cartpole)

    with mlflow.start_run() as run:
        finetune.log_lineage(run.info.run_id, str(before.model_id))

    found = mlflow.get_run(run.info.run_id)
    assert found.inputs is not None
    assert [model.model_id for model in found.inputs.model_inputs] == [before.model_id]
    assert (
        found.data.tags["mlflow_sb3.from_model"]
        == before.model_id
        == mlflow.search_logged_models(output_format="list")[0].model_id
    )


def test_another_environment_of_the_same_spaces_will_do(logged: str) -> None:
    shorter = env_spec.compose_spec("CartPole-v1", kwargs={"max_episode_steps": 20})

    vec_env = load(logged, shorter).model.get_env()

    assert vec_env is not None
    assert vec_env.get_attr("spec")[0].max_episode_steps == 20


@pytest.mark.parametrize(
    ("algo", "env_id", "hyperparams", "says"),
    [
        (
            "ppo",
            "CartPole-v1",
            {},
            r"is an agent of stable_baselines3\.dqn\.dqn\.DQN, not of ppo; give the algorithm",
        ),
        (
            "dqn",
            "Acrobot-v1",
            {},
            "cannot go on in this environment, or with these hyperparameters: Observation spaces do not match",
        ),
        (
            "dqn",
            "CartPole-v1",
            {"policy_kwargs": {"net_arch": [4]}},
            "'policy_kwargs' cannot be changed: .* keeps what its networks and buffers were made for",
        ),
        ("dqn", "CartPole-v1", {"normalize": True}, "'normalize' cannot be changed"),
        ("dqn", "CartPole-v1", {"n_epochs": 4}, "dqn has no hyperparameter 'n_epochs'"),
        (
            "dqn",
            "CartPole-v1",
            {"learning_rate": "fast"},
            "or with these hyperparameters: learning_rate is 'fast'",
        ),
    ],
)
def test_what_cannot_go_on_is_refused(
    algo: str, env_id: str, hyperparams: dict[str, Any], says: str, logged: str
) -> None:
    with pytest.raises(MlflowException, match=says):
        finetune.load_base_agent(logged, algo, env_spec.compose_spec(env_id), hyperparams, seed=0)


def test_nothing_goes_on_where_unpickling_is_forbidden(
    logged: str, cartpole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

    with pytest.raises(
        MlflowException, match="going on from models:/agent@champion would unpickle"
    ):
        load(logged, cartpole)


@pytest.mark.usefixtures("store")
def test_what_was_learned_to_normalize_with_goes_on_too() -> None:
    pendulum = env_spec.compose_spec("Pendulum-v1")
    model = algorithms.build(
        "ppo", pendulum, {"n_steps": 32, "batch_size": 32, "normalize": True}, seed=0
    ).learn(64)
    info = mlflow_sb3.log_model(model, name="agent")

    again = finetune.load_base_agent(info.model_uri, "ppo", pendulum, {}, seed=0).model

    assert vec_normalize.read_statistics(again) == vec_normalize.read_statistics(model)
    assert np.isfinite(loop.train(pendulum, "ppo", timesteps=32, ancestor=again).kept.score)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("n_envs", [1, 3])
def test_what_is_off_policy_fills_its_buffer_first_and_its_noise_fits(n_envs: int) -> None:
    pendulum = env_spec.compose_spec("Pendulum-v1", kwargs={"max_episode_steps": 8})
    hyperparams = {
        "learning_starts": 10,
        "buffer_size": 500,
        "batch_size": 8,
        "n_envs": 2,
        "noise_type": "normal",
    }
    info = mlflow_sb3.log_model(
        algorithms.build("td3", pendulum, hyperparams, seed=0).learn(40), name="agent"
    )

    again = finetune.load_base_agent(
        info.model_uri, "td3", pendulum, {"n_envs": n_envs}, seed=0
    ).model

    assert again.learning_starts == 10 + again.num_timesteps  # type: ignore[attr-defined]
    assert again.learn(40, reset_num_timesteps=False).num_timesteps > 70


@pytest.mark.usefixtures("store")
def test_hindsight_goes_on_too() -> None:
    description = env_spec.compose_spec("tests.environments:BitFlipping-v0")
    hyperparams = {
        "learning_starts": 20,
        "buffer_size": 500,
        "batch_size": 8,
        "replay_buffer_class": "HerReplayBuffer",
    }
    info = mlflow_sb3.log_model(
        algorithms.build("dqn", description, hyperparams, seed=0).learn(40),
        name="agent",
        environment=description,
    )

    again = finetune.load_base_agent(info.model_uri, "dqn", description, {}, seed=0).model

    assert again.learn(40, reset_num_timesteps=False).num_timesteps == 80
    with pytest.raises(
        MlflowException,
        match="cannot be loaded: You must pass an environment when using `HerReplayBuffer`",
    ):
        mlflow_sb3.load_model(info.model_uri)


@pytest.mark.usefixtures("store")
def test_the_environment_of_the_agent_is_the_default() -> None:
    wrapped = env_spec.compose_spec(
        "CartPole-v1", wrappers=["rl_zoo3.wrappers:MaskVelocityWrapper"]
    )
    model = algorithms.build("dqn", wrapped, SMALL, seed=0)
    uri = mlflow_sb3.log_model(model, name="agent", environment=wrapped).model_uri

    assert finetune.base_env_spec(uri, env_spec.compose_spec("CartPole-v1")) == json.dumps(
        json.loads(wrapped)
    )
    assert finetune.base_env_spec(
        uri, env_spec.compose_spec("Pendulum-v1")
    ) == env_spec.compose_spec("Pendulum-v1")
    assert env_spec.list_wrappers(wrapped) == [{"rl_zoo3.wrappers:MaskVelocityWrapper": {}}]
