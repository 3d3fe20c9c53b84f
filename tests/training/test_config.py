from __future__ import annotations

import json
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from stable_baselines3 import PPO

import mlflow_sb3
from mlflow_sb3.algorithms.zoo_presets import DEFAULT_TIMESTEPS
from mlflow_sb3.envs import env_spec
from mlflow_sb3.tracking.file_trust import FileTrust
from mlflow_sb3.training.checkpoint_selection import EvaluationSettings
from mlflow_sb3.training.config import TrainingConfig, resolve_config
from mlflow_sb3.training.finetune import BaseAgent

OPTIONS: dict[str, Any] = {
    "env": "CartPole-v1",
    "algo": "dqn",
    "timesteps": None,
    "seed": 3,
    "hyperparams": {},
    "preset": "zoo",
    "env_kwargs": {},
    "wrappers": [],
    "from_model": "",
    "torch_threads": 1,
    "eval_freq": None,
    "eval_episodes": 10,
    "selection": "race",
    "eval_budget": 0.1,
    "eval_steps": None,
    "race_episodes": None,
    "trust": FileTrust(allow_pickle=True),
}
MASK_VELOCITY = "rl_zoo3.wrappers:MaskVelocityWrapper"


def resolve(**options: Any) -> tuple[TrainingConfig, BaseAgent | None]:
    """Resolve ``OPTIONS`` with some changes."""
    return resolve_config(**(OPTIONS | options))


@pytest.fixture
def model_uri(store: str, ppo: PPO) -> str:
    """Model URI, with an alias, of a PPO agent on CartPole-v1."""
    mlflow_sb3.log_model(ppo, name="agent", registered_model_name="agent")
    MlflowClient().set_registered_model_alias("agent", "champion", "1")
    return "models:/agent@champion"


def test_a_preset_gives_hyperparameters_and_timesteps() -> None:
    config, base_agent = resolve(hyperparams={"gamma": 0.5})

    assert base_agent is None
    assert config.preset == "rl_zoo3/hyperparams/dqn.yml#CartPole-v1"
    assert config.timesteps == 50_000
    assert (config.hyperparams["batch_size"], config.hyperparams["gamma"]) == (64, 0.5)
    assert (config.resolved["batch_size"], config.resolved["gamma"]) == ("64", "0.5")
    assert config.resolved["max_grad_norm"] == "10"  # SB3's default


def test_timesteps_of_the_caller_replace_those_of_the_preset() -> None:
    assert resolve(timesteps=100)[0].timesteps == 100
    assert resolve(hyperparams={"n_timesteps": "1e3"})[0].timesteps == 1000
    assert resolve(preset="none")[0].timesteps == DEFAULT_TIMESTEPS


def test_the_options_of_a_config_give_the_same_config() -> None:
    config, _ = resolve(wrappers=[MASK_VELOCITY], env_kwargs={"max_episode_steps": 20})
    options = config.to_options()
    json_options = ("hyperparams", "env_kwargs", "wrappers")

    repeated, _ = resolve(
        **{key: json.loads(options[key]) for key in json_options},
        timesteps=int(options["timesteps"]),
        preset=options["preset"],
    )

    assert (repeated.description, repeated.resolved) == (config.description, config.resolved)
    assert (repeated.timesteps, repeated.hyperparams) == (config.timesteps, config.hyperparams)


def test_only_changed_settings_of_the_evaluation_are_passed_on() -> None:
    values = {
        "eval_freq": 500,
        "eval_episodes": 3,
        "selection": "best",
        "eval_budget": 0.5,
        "eval_steps": [20, 40],
        "race_episodes": 76,
    }
    changed, _ = resolve(**values)

    assert values.keys().isdisjoint(resolve()[0].to_options())  # older versions of train lack them
    assert changed.evaluation == EvaluationSettings(500, 3, "best", 0.5, [20, 40], 76)
    assert {key: changed.to_options()[key] for key in values} == {
        key: str(value) for key, value in values.items()
    }
    assert changed.to_params()["sb3/eval_freq"] == 500


def test_a_config_is_restored_from_its_json() -> None:
    config, _ = resolve(wrappers=[MASK_VELOCITY])

    assert TrainingConfig(**json.loads(json.dumps(config.to_json()))) == config


def test_the_keys_of_the_stored_json_are_stable() -> None:
    config, _ = resolve()

    assert list(config.to_json()) == [
        "env",
        "algo",
        "timesteps",
        "seed",
        "hyperparams",
        "env_kwargs",
        "wrappers",
        "from_model",
        "from_model_id",
        "torch_threads",
        "preset",
        "description",
        "resolved",
        "eval_freq",
        "eval_episodes",
        "selection",
        "eval_budget",
        "eval_steps",
        "race_episodes",
    ]


def test_parameters_have_a_prefix_and_json_values() -> None:
    params = resolve(wrappers=[MASK_VELOCITY])[0].to_params()

    assert (params["sb3/env"], params["sb3/algo"], params["sb3/seed"]) == ("CartPole-v1", "dqn", 3)
    assert params["sb3/wrappers"] == json.dumps([MASK_VELOCITY])
    assert params["sb3/gamma"] == "0.99"
    assert all(key.startswith("sb3/") for key in params)


def test_from_model_is_pinned_to_its_version(model_uri: str) -> None:
    config, base_agent = resolve(algo="ppo", from_model=model_uri)

    assert base_agent is not None
    assert config.from_model == "models:/agent/1"
    assert config.from_model_id == base_agent.model_id
    assert config.preset == model_uri
    assert config.hyperparams == {}
    assert config.resolved["n_steps"] == "64"  # the agent's own


def test_from_model_keeps_the_wrappers_of_the_agent(store: str, ppo: PPO) -> None:
    assert store
    wrapped = env_spec.compose_spec("CartPole-v1", wrappers=[MASK_VELOCITY])
    uri = mlflow_sb3.log_model(ppo, name="agent", environment=wrapped).model_uri

    config, _ = resolve(algo="ppo", from_model=uri)

    assert config.wrappers == []
    assert env_spec.list_wrappers(config.description) == [{MASK_VELOCITY: {}}]
    assert config.to_params()["sb3/wrappers"] == json.dumps([{MASK_VELOCITY: {}}])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"algo": "dreamer"}, "Unknown algorithm 'dreamer'"),
        ({"hyperparams": {"n_epochs": 4}}, "dqn has no hyperparameter 'n_epochs'"),
        ({"env": "Pendulum-v1"}, "dqn does not support the action space"),
    ],
)
def test_options_that_do_not_fit_are_rejected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MlflowException, match=message):
        resolve(**options)
