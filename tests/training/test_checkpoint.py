from __future__ import annotations

import math

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from mlflow_sb3.algorithms import builder
from mlflow_sb3.envs import env_spec
from mlflow_sb3.training import loop
from mlflow_sb3.training.checkpoint import Checkpoint

PENDULUM = env_spec.spec_to_json(gymnasium.spec("Pendulum-v1"))


def build_model(seed: int) -> BaseAlgorithm:
    """Return a PPO with VecNormalize that has learned for 64 timesteps."""
    hyperparams = {"n_steps": 64, "normalize": True}
    return builder.build_algorithm("ppo", PENDULUM, hyperparams, seed=seed).learn(64)


@pytest.fixture(scope="module")
def model() -> BaseAlgorithm:
    return build_model(0)


def test_a_new_checkpoint_has_no_score(model: BaseAlgorithm) -> None:
    checkpoint = Checkpoint.from_model(model)

    assert checkpoint.step == 64
    assert math.isnan(checkpoint.training_score)
    assert checkpoint.returns == []


def test_loading_sets_the_weights_and_the_statistics(model: BaseAlgorithm) -> None:
    other = build_model(1)
    checkpoint = Checkpoint.from_model(model)

    checkpoint.load_into(other)

    assert loop.compute_weights_digest(other) == loop.compute_weights_digest(model)
    assert Checkpoint.from_model(other).statistics == checkpoint.statistics


def test_the_built_policy_acts_as_the_model_and_shares_no_weights(model: BaseAlgorithm) -> None:
    env = gymnasium.make("Pendulum-v1")
    spaces = env.observation_space, env.action_space
    observation = env.reset(seed=0)[0]
    vec_normalize = model.get_vec_normalize_env()
    assert vec_normalize is not None
    expected, _ = model.predict(vec_normalize.normalize_obs(observation), deterministic=True)

    policy = Checkpoint.from_model(model).build_policy(model, *spaces)
    weights = [weight.clone() for weight in model.policy.parameters()]
    with torch.no_grad():
        for weight in model.policy.parameters():
            weight.add_(1.0)
    actions, _ = policy.predict(observation)
    with torch.no_grad():
        for weight, original in zip(model.policy.parameters(), weights, strict=True):
            weight[...] = original

    np.testing.assert_array_equal(actions, expected)


def test_the_score_is_the_mean_of_the_fresh_returns() -> None:
    assert Checkpoint(1, b"", 0.0, returns=[1.0, 3.0]).score == 2.0


def test_checkpoints_rank_by_score_then_training_score_then_step() -> None:
    low = Checkpoint(9, b"", 9.0, returns=[1.0])
    high = Checkpoint(1, b"", 1.0, returns=[2.0])
    better_in_training = Checkpoint(1, b"", 2.0, returns=[2.0])
    later = Checkpoint(2, b"", 2.0, returns=[2.0])

    assert low.rank < high.rank < better_in_training.rank < later.rank
