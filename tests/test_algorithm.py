from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from mlflow.exceptions import MlflowException
from stable_baselines3 import DDPG, PPO
from stable_baselines3.common.noise import NormalActionNoise
from torch import nn

from mlflow_sb3 import algorithm, environment

BOX = spaces.Box(-1, 1, (3,))


@pytest.fixture(scope="module")
def pendulum() -> str:
    return environment.describe(gymnasium.spec("Pendulum-v1"))


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(MlflowException, match="'tqc' is unknown; take one of a2c, ddpg, dqn, ppo, sac, td3"):
        algorithm.find("tqc")


@pytest.mark.parametrize(
    ("algo", "observations", "actions", "says"),
    [
        ("dqn", BOX, BOX, "dqn does not fit the action space Box.*it takes Discrete; use a2c, ddpg, ppo, sac, td3"),
        ("sac", BOX, spaces.Discrete(2), r"sac does not fit the action space Discrete\(2\): it takes Box; use a2c, dqn, ppo"),
        ("ppo", BOX, spaces.MultiDiscrete([2, 2]), "no algorithm of this version takes these actions yet"),
        ("ppo", BOX, spaces.Discrete(2, start=1), "takes Discrete actions that start at 0"),
        ("ppo", spaces.Discrete(4), spaces.Discrete(2), r"observations of Discrete\(4\) are not supported yet"),
        ("ppo", spaces.Dict(a=BOX), spaces.Discrete(2), "observations of Dict.* are not supported yet"),
        (
            "ppo",
            spaces.Box(0, 255, (36, 36, 3), np.uint8),
            spaces.Discrete(2),
            "are not supported yet; this version takes Box observations that are no images",
        ),
    ],
)
def test_spaces_that_do_not_fit_are_refused(algo: str, observations: spaces.Space[Any], actions: spaces.Space[Any], says: str) -> None:
    with pytest.raises(MlflowException, match=says):
        algorithm.check_spaces(algo, observations, actions)


@pytest.mark.parametrize(
    ("hyperparams", "says"),
    [
        ({"lerning_rate": 1}, "ppo has no hyperparameter 'lerning_rate'; it has batch_size, clip_range"),
        ({"noise_std": 0.1}, "ppo has no hyperparameter 'noise_std'"),
        ({"policy": "CnnPolicy"}, "policy 'CnnPolicy' is not supported yet"),
        ({"learning_rate": "lin_fast"}, "ppo refuses these hyperparameters: could not convert"),
        ({"learning_rate": "0.001"}, "learning_rate is '0.001'; give a number, or 'lin_0.001' for one that falls"),
        ({"n_steps": "many"}, "ppo refuses these hyperparameters"),
        ({"n_steps": 10**15, "batch_size": 10**15}, "ppo refuses these hyperparameters: Unable to allocate"),
        ({"policy_kwargs": {"nonsense": 1}}, "ppo refuses these hyperparameters.*nonsense"),
        ({"policy_kwargs": {"activation_fn": "nn.Nothing"}}, "ppo refuses these hyperparameters"),
    ],
)
def test_hyperparameters_that_do_not_fit_are_refused(hyperparams: dict[str, Any], says: str, cartpole: str) -> None:
    with pytest.raises(MlflowException, match=says):
        algorithm.build("ppo", cartpole, hyperparams, seed=0)


def test_json_becomes_the_arguments_of_sb3(cartpole: str) -> None:
    hyperparams = {"n_envs": 2, "n_steps": 32, "learning_rate": "lin_0.004", "policy_kwargs": {"net_arch": [8], "activation_fn": "nn.ReLU"}}

    model = algorithm.build("ppo", cartpole, hyperparams, seed=5)

    assert isinstance(model, PPO)
    assert model.n_envs == 2
    assert [model.lr_schedule(left) for left in (1.0, 0.5, 0.0)] == [0.004, 0.002, 0.0]
    assert model.policy_kwargs == {"net_arch": [8], "activation_fn": nn.ReLU}
    assert hyperparams["policy_kwargs"] == {"net_arch": [8], "activation_fn": "nn.ReLU"}


def test_noise_is_named_as_in_rl_zoo3(pendulum: str) -> None:
    model = algorithm.build("ddpg", pendulum, {"noise_type": "normal", "noise_std": 0.3, "train_freq": [1, "episode"]}, seed=0)

    assert isinstance(model, DDPG)
    assert isinstance(model.action_noise, NormalActionNoise)
    assert model.action_noise._sigma.tolist() == pytest.approx([0.3])


def test_what_training_uses_is_resolved_with_the_defaults_of_sb3() -> None:
    resolved = algorithm.resolve("dqn", {"batch_size": 7, "policy_kwargs": {"net_arch": [8]}})

    assert resolved["batch_size"] == "7"
    assert resolved["gamma"] == "0.99"
    assert resolved["policy_kwargs"] == '{"net_arch": [8]}'
    assert "seed" not in resolved
    assert "noise_std" not in algorithm.resolve("ddpg", {})
    assert algorithm.resolve("ddpg", {"noise_type": "normal"})["noise_std"] == "0.1"
