from __future__ import annotations

import json
from typing import Any

import gymnasium
import pytest
from mlflow.exceptions import MlflowException
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm

from mlflow_sb3.algorithms import builder
from mlflow_sb3.envs import env_spec
from mlflow_sb3.exchange.zoo_config import ZooConfig, build_config
from mlflow_sb3.flavor import model_writer
from mlflow_sb3.flavor.vec_normalize import Statistics

STATISTICS: Statistics = {"norm_obs": True, "norm_reward": False}
STACK = "mlflow_sb3.wrappers:FrameStack"
SCALE = "tests.environments:ScaleObservation"


def build(
    model: BaseAlgorithm, environment: str | None = None, statistics: Statistics | None = None
) -> ZooConfig:
    prepared = model_writer.prepare_model(model, environment, inference="native")
    return build_config(prepared.agent_info, prepared.files["agent.zip"], statistics)


def make(env_id: str = "CartPole-v1", **changes: Any) -> tuple[PPO, str]:
    """Return an agent for an environment, and the environment as EnvSpec JSON."""
    description = env_spec.compose_spec(env_id, **changes)
    return PPO("MlpPolicy", env_spec.make_from_spec(description)), description


def test_hyperparameters_are_read_without_unpickling() -> None:
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=64, gamma=0.9, learning_rate=lambda _: 1.0)

    zoo = build(model)

    assert zoo.config.items() >= {"n_steps": 64, "gamma": 0.9, "policy": "MlpPolicy"}.items()
    assert "learning_rate" not in zoo.config
    assert (zoo.algo, zoo.env_id, zoo.env_name) == ("ppo", "CartPole-v1", "CartPole-v1")
    assert (zoo.args["env_kwargs"], zoo.args["gym_packages"]) == (None, [])


def test_text_that_rl_zoo3_would_evaluate_is_left_out() -> None:
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=64)
    vars(model)["policy_kwargs"] = "__import__('os').mkdir('x')"
    vars(model)["target_kl"] = "word"

    zoo = build(model)

    assert "policy_kwargs" not in zoo.config
    assert zoo.config["target_kl"] == "word"


def test_the_replay_buffer_of_her_is_named() -> None:
    environment = env_spec.compose_spec("tests.environments:BitFlipping-v0")
    hyperparams = {"replay_buffer_class": "HerReplayBuffer", "buffer_size": 100}
    her = builder.build_algorithm("dqn", environment, hyperparams, seed=0)
    dqn = DQN("MlpPolicy", "CartPole-v1", buffer_size=100)

    assert build(her).config["replay_buffer_class"] == "HerReplayBuffer"
    assert "replay_buffer_class" not in build(dqn).config


def test_wrappers_and_a_frame_stack_are_in_the_notation_of_rl_zoo3() -> None:
    wrappers = [{SCALE: {"factor": 2.0}}, {STACK: {"n_stack": 3}}]
    model, environment = make(wrappers=wrappers)

    config = build(model, environment).config

    assert config["env_wrapper"] == [{SCALE.replace(":", "."): {"factor": 2.0}}]
    assert config["frame_stack"] == 3


@pytest.mark.parametrize(
    ("stack", "statistics"),
    [({"n_stack": 3}, STATISTICS), ({"n_stack": 3, "channels_order": "last"}, None)],
)
def test_rl_zoo3_cannot_stack_as_the_agent_does(
    stack: dict[str, Any], statistics: Statistics | None
) -> None:
    model, environment = make(wrappers=[{STACK: stack}])

    config = build(model, environment, statistics).config

    assert config["env_wrapper"][0].keys() == {"mlflow_sb3.wrappers.FrameStack"}
    assert "frame_stack" not in config
    assert config.get("normalize") == (
        "dict(norm_obs=True, norm_reward=False)" if statistics else None
    )


def test_spaces_that_do_not_start_at_0_are_shifted() -> None:
    env = gymnasium.make("tests.environments:Shifted-v0")
    environment = env_spec.spec_to_json(env.spec)
    model = builder.build_algorithm("ppo", environment, {}, seed=0)

    assert build(model, environment).config["env_wrapper"] == [
        {"mlflow_sb3.wrappers.ZeroStart": {}}
    ]


@pytest.mark.parametrize(
    ("kwargs", "expected"),
    [
        ({"g": 3.0}, {"g": 3.0}),
        ({"max_episode_steps": 7}, {"max_episode_steps": 7}),
        ({"max_episode_steps": -1}, {"max_episode_steps": -1}),
    ],
)
def test_changed_arguments_of_the_environment_are_kept(
    kwargs: dict[str, Any], expected: dict[str, Any]
) -> None:
    model, environment = make("Pendulum-v1", kwargs=kwargs)

    zoo = build(model, environment)

    assert (zoo.args["env_kwargs"], zoo.env_kwargs) == (expected, expected)


def test_the_wrappers_and_arguments_of_the_registration_are_left_out() -> None:
    gymnasium.register(
        "RegisteredPendulum-v0",
        entry_point="gymnasium.envs.classic_control:PendulumEnv",
        kwargs={"g": 3.0},
        additional_wrappers=(
            gymnasium.wrappers.ClipReward.wrapper_spec(min_reward=-1.0, max_reward=1.0),
        ),
    )
    model, environment = make("RegisteredPendulum-v0", wrappers=[{SCALE: {"factor": 2.0}}])

    zoo = build(model, environment)

    assert json.loads(environment)["kwargs"] == {"g": 3.0}
    assert len(zoo.config["env_wrapper"]) == 1
    assert zoo.args["env_kwargs"] is None


def test_the_module_of_another_environment_is_named() -> None:
    model, environment = make("tests.environments:Levels-v0")

    zoo = build(model, environment)

    assert (zoo.env_id, zoo.args["gym_packages"]) == ("Levels-v0", ["tests.environments"])


def test_an_agent_without_an_environment_is_refused() -> None:
    model = PPO("MlpPolicy", "CartPole-v1")
    model.env = None

    with pytest.raises(MlflowException, match="environment of the agent is none, which rl_zoo3"):
        build(model)


def test_another_algorithm_is_refused() -> None:
    class OwnPPO(PPO):
        """A class that rl_zoo3 does not know."""

    with pytest.raises(MlflowException, match="OwnPPO, which rl_zoo3 does not know"):
        build(OwnPPO("MlpPolicy", "CartPole-v1"))
