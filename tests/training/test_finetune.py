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
from mlflow_sb3.algorithms.builder import build_algorithm
from mlflow_sb3.envs import env_spec
from mlflow_sb3.flavor import vec_normalize
from mlflow_sb3.tracking.file_trust import FileTrust
from mlflow_sb3.training import finetune, loop
from mlflow_sb3.training.finetune import BaseAgent

SMALL_DQN = {
    "learning_starts": 8,
    "buffer_size": 500,
    "batch_size": 8,
    "n_envs": 2,
    "exploration_fraction": 0.5,
}


TRUST = FileTrust(allow_pickle=True)


@pytest.fixture(scope="module")
def dqn(cartpole: str) -> DQN:
    """DQN on CartPole-v1 after 100 steps."""
    model = build_algorithm("dqn", cartpole, SMALL_DQN, seed=0).learn(100)
    assert isinstance(model, DQN)
    return model


@pytest.fixture
def model_uri(store: str, dqn: DQN) -> str:
    """Model URI, with an alias, of the logged `dqn`."""
    mlflow_sb3.log_model(dqn, name="agent", registered_model_name="agent")
    MlflowClient().set_registered_model_alias("agent", "champion", "1")
    return "models:/agent@champion"


def load(model_uri: str, env_spec_json: str, **hyperparams: Any) -> BaseAgent:
    """Load a DQN agent to fine-tune it."""
    return finetune.load_base_agent(
        model_uri, "dqn", env_spec_json, hyperparams, seed=1, trust=TRUST
    )


@pytest.mark.train
def test_a_base_agent_has_the_networks_the_optimizer_and_the_exploration_rate(
    model_uri: str, dqn: DQN, cartpole: str
) -> None:
    model = load(model_uri, cartpole).model

    assert isinstance(model, DQN)
    weights, expected = model.policy.state_dict(), dqn.policy.state_dict()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert (
        model.policy.optimizer.state_dict()["state"].keys()
        == dqn.policy.optimizer.state_dict()["state"].keys()
    )
    assert (model.num_timesteps, model.n_envs) == (dqn.num_timesteps, 2)
    assert model.exploration_rate == dqn.exploration_rate


def test_a_base_agent_is_trained_further(model_uri: str, dqn: DQN, cartpole: str) -> None:
    model = load(model_uri, cartpole).model

    result = loop.train(cartpole, "dqn", timesteps=100, base_model=model)

    assert result.model is model
    steps = [checkpoint.step for checkpoint in result.checkpoints]
    assert max(steps) == dqn.num_timesteps + 104
    assert min(steps) > dqn.num_timesteps


def test_hyperparameters_can_be_changed(model_uri: str, cartpole: str) -> None:
    model = load(model_uri, cartpole, learning_rate=1e-5, gamma=0.5, n_envs=1).model

    assert isinstance(model, DQN)
    assert (model.lr_schedule(0.3), model.gamma, model.n_envs) == (1e-5, 0.5, 1)


def test_the_lineage_is_recorded_as_an_input_and_as_a_tag(model_uri: str, cartpole: str) -> None:
    model_id = load(model_uri, cartpole).model_id

    with mlflow.start_run() as run:
        finetune.log_lineage(run.info.run_id, str(model_id))

    stored = mlflow.get_run(run.info.run_id)
    assert stored.inputs is not None
    assert [model.model_id for model in stored.inputs.model_inputs] == [model_id]
    assert stored.data.tags["mlflow_sb3.from_model"] == model_id
    assert mlflow.search_logged_models(output_format="list")[0].model_id == model_id


def test_another_environment_with_the_same_spaces_is_allowed(model_uri: str) -> None:
    shorter = env_spec.compose_spec("CartPole-v1", kwargs={"max_episode_steps": 20})

    vec_env = load(model_uri, shorter).model.get_env()

    assert vec_env is not None
    assert vec_env.get_attr("spec")[0].max_episode_steps == 20


@pytest.mark.train
@pytest.mark.parametrize(
    ("algo", "env_id", "hyperparams", "message"),
    [
        (
            "ppo",
            "CartPole-v1",
            {},
            r"was trained with stable_baselines3\.dqn\.dqn\.DQN, not with ppo\. Use the algorithm",
        ),
        (
            "dqn",
            "Acrobot-v1",
            {},
            (
                "cannot be trained in this environment with these hyperparameters: "
                "Observation spaces do not match"
            ),
        ),
        (
            "dqn",
            "CartPole-v1",
            {"policy_kwargs": {"net_arch": [4]}},
            "'policy_kwargs' cannot be changed, because the networks, optimizers, buffers or .*",
        ),
        ("dqn", "CartPole-v1", {"normalize": True}, "'normalize' cannot be changed"),
        ("dqn", "CartPole-v1", {"n_epochs": 4}, "dqn has no hyperparameter 'n_epochs'"),
        (
            "dqn",
            "CartPole-v1",
            {"learning_rate": "fast"},
            "with these hyperparameters: learning_rate is 'fast'",
        ),
    ],
)
def test_changes_that_the_agent_does_not_allow_are_rejected(
    algo: str, env_id: str, hyperparams: dict[str, Any], message: str, model_uri: str
) -> None:
    env_spec_json = env_spec.compose_spec(env_id)

    with pytest.raises(MlflowException, match=message):
        finetune.load_base_agent(model_uri, algo, env_spec_json, hyperparams, seed=0, trust=TRUST)


def test_no_agent_is_unpickled_if_unpickling_is_forbidden(
    model_uri: str, cartpole: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

    with pytest.raises(MlflowException, match="Fine-tuning models:/agent@champion would unpickle"):
        load(model_uri, cartpole)


@pytest.mark.usefixtures("store")
def test_a_base_agent_has_the_vec_normalize_statistics() -> None:
    pendulum = env_spec.compose_spec("Pendulum-v1")
    hyperparams = {"n_steps": 32, "batch_size": 32, "normalize": True}
    model = build_algorithm("ppo", pendulum, hyperparams, seed=0).learn(64)
    model_uri = mlflow_sb3.log_model(model, name="agent").model_uri

    base = finetune.load_base_agent(model_uri, "ppo", pendulum, {}, seed=0, trust=TRUST).model

    assert vec_normalize.read_statistics(base) == vec_normalize.read_statistics(model)
    result = loop.train(pendulum, "ppo", timesteps=32, base_model=base)
    assert np.isfinite(result.best.score)


@pytest.mark.train
@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("n_envs", [1, 3])
def test_an_off_policy_agent_fills_its_buffer_first_and_can_change_n_envs(n_envs: int) -> None:
    pendulum = env_spec.compose_spec("Pendulum-v1", kwargs={"max_episode_steps": 8})
    hyperparams = {
        "learning_starts": 10,
        "buffer_size": 500,
        "batch_size": 8,
        "n_envs": 2,
        "noise_type": "normal",
    }
    model = build_algorithm("td3", pendulum, hyperparams, seed=0).learn(40)
    model_uri = mlflow_sb3.log_model(model, name="agent").model_uri

    base: Any = finetune.load_base_agent(
        model_uri, "td3", pendulum, {"n_envs": n_envs}, seed=0, trust=TRUST
    ).model

    assert base.learning_starts == 10 + base.num_timesteps
    assert base.learn(40, reset_num_timesteps=False).num_timesteps > 70


@pytest.mark.usefixtures("store")
def test_an_agent_with_her_is_trained_further() -> None:
    bit_flipping = env_spec.compose_spec("tests.environments:BitFlipping-v0")
    hyperparams = {
        "learning_starts": 20,
        "buffer_size": 500,
        "batch_size": 8,
        "replay_buffer_class": "HerReplayBuffer",
    }
    model = build_algorithm("dqn", bit_flipping, hyperparams, seed=0).learn(40)
    model_uri = mlflow_sb3.log_model(model, name="agent", environment=bit_flipping).model_uri

    base = finetune.load_base_agent(model_uri, "dqn", bit_flipping, {}, seed=0, trust=TRUST).model

    assert base.learn(40, reset_num_timesteps=False).num_timesteps == 80
    with pytest.raises(
        MlflowException, match="You must pass an environment when using `HerReplayBuffer`"
    ):
        mlflow_sb3.load_model(model_uri, allow_pickle=True)


@pytest.mark.usefixtures("store")
def test_the_environment_of_the_agent_is_used_for_the_same_id(dqn: DQN) -> None:
    wrapped = env_spec.compose_spec(
        "CartPole-v1", wrappers=["rl_zoo3.wrappers:MaskVelocityWrapper"]
    )
    model_uri = mlflow_sb3.log_model(dqn, name="agent", environment=wrapped).model_uri
    cartpole = env_spec.compose_spec("CartPole-v1")
    pendulum = env_spec.compose_spec("Pendulum-v1")

    assert json.loads(finetune.get_base_env_spec(model_uri, cartpole, trust=TRUST)) == json.loads(
        wrapped
    )
    assert finetune.get_base_env_spec(model_uri, pendulum, trust=TRUST) == pendulum
