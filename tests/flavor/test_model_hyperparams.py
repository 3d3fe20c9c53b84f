from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sb3_contrib import QRDQN
from stable_baselines3 import DQN, PPO, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from mlflow_sb3.algorithms import builder
from mlflow_sb3.algorithms.algorithms import get_algorithm_name
from mlflow_sb3.flavor.model_hyperparams import read_hyperparams


class MyDQN(DQN):
    """Algorithm of a user."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


class Unknown(BaseAlgorithm):
    """An algorithm that is not derived from one of SB3."""


@pytest.mark.parametrize(
    ("cls", "name"), [(PPO, "ppo"), (QRDQN, "qrdqn"), (MyDQN, "dqn"), (Unknown, "unknown")]
)
def test_an_algorithm_has_the_name_of_its_base_class(cls: type[BaseAlgorithm], name: str) -> None:
    assert get_algorithm_name(cls) == name


def test_schedules_classes_and_environments_are_text() -> None:
    env = VecNormalize(make_vec_env("CartPole-v1", n_envs=2), gamma=0.9)
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=8,
        batch_size=16,
        learning_rate=LinearSchedule(start=0.01, end=0.0, end_fraction=1.0),
        clip_range=lambda progress: 0.2 * progress,
        policy_kwargs={"net_arch": [8], "activation_fn": nn.ReLU},
    )

    values = read_hyperparams(model)

    assert values["learning_rate"] == "lin_0.01"
    assert values["clip_range"] == "<lambda>"
    assert values["policy_kwargs"] == '{"net_arch": [8], "activation_fn": "ReLU"}'
    assert (values["policy"], values["n_envs"], values["batch_size"]) == ("MlpPolicy", "2", "16")
    assert '"gamma": 0.9' in values["normalize"]
    assert "target_kl" not in values  # None


def test_a_subclass_has_the_hyperparameters_of_its_base_class() -> None:
    model = MyDQN("MlpPolicy", "CartPole-v1", train_freq=(2, "episode"), buffer_size=100)

    values = read_hyperparams(model)

    assert (values["train_freq"], values["buffer_size"]) == ('[2, "episode"]', "100")
    assert values["exploration_fraction"] == "0.1"


def test_action_noise_is_described() -> None:
    noise = NormalActionNoise(np.zeros(1), np.full(1, 0.3))

    values = read_hyperparams(TD3("MlpPolicy", "Pendulum-v1", action_noise=noise, buffer_size=100))

    assert values["action_noise"] == "NormalActionNoise(mu=[0.], sigma=[0.3])"


def test_a_linear_schedule_of_train_is_read_in_the_notation_of_train(cartpole: str) -> None:
    model = builder.build_algorithm("ppo", cartpole, {"clip_range": "lin_0.1"}, seed=0)

    assert read_hyperparams(model)["clip_range"] == "lin_0.1"
