from __future__ import annotations

import numpy as np
import pytest
from stable_baselines3 import A2C, DDPG, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise

from mlflow_sb3.flavor import sb3_internals
from mlflow_sb3.training import learn_state
from mlflow_sb3.training.learn_state import ITERATIONS_KEY, IterationLogger, LearnState
from tests.training.training_cases import MetricRecorder


def test_the_logger_continues_the_iteration_count() -> None:
    recorder = MetricRecorder()
    logger = IterationLogger([recorder])

    logger.continue_from(7)
    logger.record(ITERATIONS_KEY, 1)
    logger.record("other", 1)
    logger.dump(100)

    assert logger.iterations == 8
    assert recorder.curves == [(100, "other", 1.0), (100, ITERATIONS_KEY, 8.0)]


@pytest.mark.parametrize(("cls", "expected"), [(A2C, 100), (DQN, 1), (PPO, 1)])
def test_rollouts_per_dump_are_the_log_interval_of_on_policy_algorithms(
    cls: type[BaseAlgorithm], expected: int
) -> None:
    model = cls("MlpPolicy", "CartPole-v1", device="cpu")  # type: ignore[call-arg]

    assert learn_state.get_rollouts_per_dump(model) == expected


def build_ddpg() -> DDPG:
    noise = OrnsteinUhlenbeckActionNoise(np.zeros(1), np.full(1, 0.5))
    model = DDPG("MlpPolicy", "Pendulum-v1", action_noise=noise, seed=0, device="cpu")
    model.set_logger(IterationLogger([]))
    return model


def test_restoring_undoes_what_learn_resets() -> None:
    model = build_ddpg().learn(20)
    model.logger.record("custom", 3.0)
    state = LearnState.from_model(model)
    noise = vars(model.action_noise)["noise_prev"].copy()

    other = build_ddpg().learn(3)
    state.restore(other)

    assert noise.tolist() != [0.0]
    assert vars(other.action_noise)["noise_prev"].tolist() == noise.tolist()
    assert other.logger.name_to_value["custom"] == 3.0
    assert sb3_internals.get_timesteps_at_start(other) == 0
    assert state.gsde_distribution is None


def test_the_exploration_matrices_of_gsde_are_restored() -> None:
    model, other = (
        PPO("MlpPolicy", "Pendulum-v1", n_steps=8, batch_size=8, use_sde=True, seed=seed)
        for seed in (0, 1)
    )
    for algorithm in (model, other):
        algorithm.set_logger(IterationLogger([]))
        algorithm.learn(8)
    matrix = vars(model.policy.action_dist)["exploration_mat"]

    LearnState.from_model(model).restore(other)

    assert vars(other.policy.action_dist)["exploration_mat"].tolist() == matrix.tolist()
