"""Contract of the private names that ``sb3_internals`` uses.

All of them exist in stable-baselines3 2.7 to 2.9 and in sb3-contrib 2.7 to 2.9.
"""

from __future__ import annotations

import inspect
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from sb3_contrib import ARS, RecurrentPPO
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecTransposeImage

from mlflow_sb3.flavor import sb3_internals

SMALL: dict[str, Any] = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def ppo() -> PPO:
    return PPO("MlpPolicy", "CartPole-v1", **SMALL).learn(16)


def test_wrap_env_transposes_images() -> None:
    vec_env = DummyVecEnv([lambda: gymnasium.make("tests.environments:Picture-v0")])

    assert isinstance(sb3_internals.wrap_env(vec_env), VecTransposeImage)


def test_learn_keeps_its_timesteps_in_the_names_that_are_read(ppo: PPO) -> None:
    assert sb3_internals.get_timesteps_at_start(ppo) == 0
    assert sb3_internals.get_total_timesteps(ppo) == 16


def test_learn_measures_its_speed_from_the_timesteps_at_its_start() -> None:
    model = PPO("MlpPolicy", "CartPole-v1", **SMALL).learn(8)

    sb3_internals.set_timesteps_at_start(model, 5)

    assert sb3_internals.get_timesteps_at_start(model) == 5
    assert "_num_timesteps_at_start" in inspect.getsource(PPO.dump_logs)


def test_learn_resets_the_environments_without_a_last_observation() -> None:
    model = PPO("MlpPolicy", "CartPole-v1", **SMALL).learn(8)
    vec_env = model.get_env()
    assert vec_env is not None
    before = vec_env.get_attr("_elapsed_steps")

    sb3_internals.clear_last_observation(model)
    model._setup_learn(8, callback=None, reset_num_timesteps=False)

    assert before != [0]
    assert vec_env.get_attr("_elapsed_steps") == [0]


def test_an_algorithm_keeps_its_logger_in_the_named_attribute(ppo: PPO) -> None:
    assert vars(ppo)[sb3_internals.LOGGER_ATTRIBUTE] is ppo.logger


def test_predict_action_agrees_with_predict(ppo: PPO) -> None:
    observation = np.full((3, 4), 0.1, np.float32)

    with torch.no_grad():
        actions = sb3_internals.predict_action(ppo.policy, torch.as_tensor(observation))

    assert actions.tolist() == ppo.predict(observation, deterministic=True)[0].tolist()


def test_the_recurrent_distribution_takes_the_output_of_the_actor_network() -> None:
    model = RecurrentPPO("MlpLstmPolicy", "CartPole-v1", **SMALL)
    latent = torch.zeros(3, model.policy.mlp_extractor.latent_dim_pi)

    assert isinstance(model.policy, RecurrentActorCriticPolicy)
    distribution = sb3_internals.get_recurrent_distribution(model.policy, latent)

    assert distribution.get_actions(deterministic=True).shape == (3,)


def test_only_ars_draws_before_a_rollout(ppo: PPO) -> None:
    ars = ARS("MlpPolicy", "CartPole-v1", n_delta=2, device="cpu", seed=0)

    assert sb3_internals.draws_before_rollout(ars)
    assert not sb3_internals.draws_before_rollout(ppo)


def test_ars_computes_its_progress_from_the_total_timesteps() -> None:
    ars = ARS("MlpPolicy", "CartPole-v1", n_delta=2, device="cpu", seed=0).learn(100)
    steps_before = ars.num_timesteps

    with sb3_internals.use_total_progress(ars):
        ars.learn(100, reset_num_timesteps=False)
        ars._update_current_progress_remaining(steps_before, 100)
        progress = ars._current_progress_remaining

    assert progress == 1 - steps_before / (steps_before + 100)
    assert "_update_current_progress_remaining" not in vars(ARS)
