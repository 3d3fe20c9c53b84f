from __future__ import annotations

import json
from typing import Any

import gymnasium
import pytest
from gymnasium import spaces
from mlflow.exceptions import MlflowException
from stable_baselines3 import DDPG, PPO
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.policies import ActorCriticCnnPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.her import HerReplayBuffer
from torch import nn

from mlflow_sb3.algorithms.algorithms import ALGORITHMS, get_algorithm_class
from mlflow_sb3.algorithms.builder import build_algorithm, start_spaces_at_zero
from mlflow_sb3.envs import env_spec
from mlflow_sb3.wrappers import ZeroStart
from tests.algorithms.examples import SMALL, SMALL_OFF_POLICY


class CustomExtractor(FlattenExtractor):
    """A features extractor that is not part of SB3."""


@pytest.fixture(scope="module")
def pendulum() -> str:
    """Pendulum-v1 as EnvSpec JSON."""
    return env_spec.spec_to_json(gymnasium.spec("Pendulum-v1"))


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_every_algorithm_learns(algo: str, cartpole: str, pendulum: str) -> None:
    if algo == "ppo_mask":
        env_spec_json = env_spec.compose_spec("tests.environments:Masked-v0")
    elif spaces.Discrete in ALGORITHMS[algo].action_spaces:
        env_spec_json = cartpole
    else:
        env_spec_json = pendulum

    model = build_algorithm(algo, env_spec_json, SMALL[algo], seed=0).learn(16)

    assert type(model) is get_algorithm_class(algo)
    assert model.num_timesteps >= 16


@pytest.mark.parametrize(
    ("hyperparams", "message"),
    [
        ({"policy": "MultiInputPolicy"}, ""),
        ({"normalize": "yes"}, "normalize is 'yes'"),
        ({"normalize": {"norm": 1}}, ".*unexpected keyword argument 'norm'"),
        ({"n_envs": "two"}, ""),
        ({"learning_rate": "lin_fast"}, "could not convert"),
        ({"n_steps": "many"}, ""),
        ({"n_steps": 10**15, "batch_size": 10**15}, "Unable to allocate"),
        ({"policy_kwargs": {"nonsense": 1}}, ".*nonsense"),
        ({"policy_kwargs": {"activation_fn": "nn.Nothing"}}, "There is no class 'nn.Nothing'"),
        (
            {"policy_kwargs": {"features_extractor_class": "nowhere:Own"}},
            "No module named 'nowhere'",
        ),
    ],
)
def test_an_error_of_sb3_becomes_an_mlflow_exception(
    hyperparams: dict[str, Any], message: str, cartpole: str
) -> None:
    with pytest.raises(
        MlflowException, match=f"ppo cannot be built with these hyperparameters: {message}"
    ):
        build_algorithm("ppo", cartpole, hyperparams, seed=0)


def test_an_unknown_hyperparameter_is_rejected(cartpole: str) -> None:
    with pytest.raises(MlflowException, match="ppo has no hyperparameter 'lerning_rate'"):
        build_algorithm("ppo", cartpole, {"lerning_rate": 1}, seed=0)


def test_an_environment_that_does_not_fit_is_rejected(cartpole: str) -> None:
    with pytest.raises(MlflowException, match=r"ppo_mask needs an environment with a method"):
        build_algorithm("ppo_mask", cartpole, {}, seed=0)


def test_maskable_ppo_learns_with_masks_of_another_method() -> None:
    env_spec_json = env_spec.compose_spec(
        "tests.environments:Valid-v0",
        wrappers=[{"mlflow_sb3.wrappers:ActionMasks": {"method": "valid_actions"}}],
    )

    model = build_algorithm("ppo_mask", env_spec_json, SMALL["ppo_mask"] | {"n_envs": 2}, seed=0)
    model.learn(32)  # the environment raises an error for an invalid action


@pytest.mark.parametrize(("algo", "continuous"), [("dqn", False), ("sac", True)])
@pytest.mark.parametrize("normalize", [False, {"norm_obs": False}])
def test_her_learns_from_goals(algo: str, continuous: bool, normalize: Any) -> None:
    env_spec_json = env_spec.compose_spec(
        "tests.environments:BitFlipping-v0", kwargs={"continuous": continuous}
    )
    her = {
        "replay_buffer_class": "HerReplayBuffer",
        "replay_buffer_kwargs": {"n_sampled_goal": 2},
        "normalize": normalize,
    }

    model: Any = build_algorithm(algo, env_spec_json, SMALL_OFF_POLICY | her, seed=0).learn(32)

    assert isinstance(model.replay_buffer, HerReplayBuffer)
    assert model.replay_buffer.n_sampled_goal == 2
    assert type(model.policy).__name__ == "MultiInputPolicy"


def test_vec_normalize_is_the_outermost_wrapper(cartpole: str) -> None:
    hyperparams = {"normalize": {"norm_reward": False}, "gamma": 0.9}

    vec_env = build_algorithm("a2c", cartpole, hyperparams, seed=0).get_env()

    assert isinstance(vec_env, VecNormalize)
    assert (vec_env.gamma, vec_env.norm_obs, vec_env.norm_reward) == (0.9, True, False)


@pytest.mark.parametrize("normalize", [None, False])
def test_nothing_is_normalized_by_default(normalize: Any, cartpole: str) -> None:
    model = build_algorithm("a2c", cartpole, {"normalize": normalize}, seed=0)

    assert model.get_vec_normalize_env() is None


def test_discrete_spaces_start_at_zero_during_training() -> None:
    env_spec_json = env_spec.compose_spec("tests.environments:Shifted-v0")

    model = build_algorithm("ppo", env_spec_json, SMALL["ppo"], seed=0).learn(16)

    assert model.action_space == spaces.Discrete(3)
    assert isinstance(model.observation_space, spaces.Dict)
    assert model.observation_space["die"] == spaces.Discrete(6)
    vec_env = model.get_env()
    assert vec_env is not None
    recorded = env_spec.spec_to_json(vec_env.get_attr("spec")[0])
    assert json.loads(recorded)["additional_wrappers"] == []


def test_only_an_environment_with_shifted_spaces_is_wrapped() -> None:
    shifted, plain = gymnasium.make("tests.environments:Shifted-v0"), gymnasium.make("CartPole-v1")

    assert isinstance(start_spaces_at_zero(shifted), ZeroStart)
    assert start_spaces_at_zero(plain) is plain


def test_stacked_images_are_learned_with_a_cnn_policy() -> None:
    env_spec_json = env_spec.compose_spec(
        "tests.environments:Picture-v0",
        wrappers=[{"mlflow_sb3.wrappers:FrameStack": {"n_stack": 2}}],
    )

    model = build_algorithm("ppo", env_spec_json, SMALL["ppo"], seed=0).learn(16)

    assert isinstance(model.policy, ActorCriticCnnPolicy)
    assert model.observation_space.shape == (6, 36, 40)


def test_json_values_become_the_arguments_of_sb3(cartpole: str) -> None:
    hyperparams = {
        "n_envs": 2,
        "n_steps": 32,
        "learning_rate": "lin_0.004",
        "policy_kwargs": {"net_arch": [8], "activation_fn": "nn.ReLU"},
    }

    model = build_algorithm("ppo", cartpole, hyperparams, seed=5)

    assert isinstance(model, PPO)
    assert (model.n_envs, model.n_steps, model.seed) == (2, 32, 5)
    assert [model.lr_schedule(remaining) for remaining in (1.0, 0.5, 0.0)] == [0.004, 0.002, 0.0]
    assert model.policy_kwargs == {"net_arch": [8], "activation_fn": nn.ReLU}


def test_a_custom_features_extractor_is_imported(cartpole: str) -> None:
    policy_kwargs = {"features_extractor_class": "tests.algorithms.test_builder:CustomExtractor"}

    model = build_algorithm("a2c", cartpole, {"policy_kwargs": policy_kwargs}, seed=0)

    assert isinstance(model.policy.features_extractor, CustomExtractor)


def test_action_noise_is_built_from_type_and_standard_deviation(pendulum: str) -> None:
    hyperparams = {"noise_type": "normal", "noise_std": 0.3, "train_freq": [1, "episode"]}

    model = build_algorithm("ddpg", pendulum, hyperparams, seed=0)

    assert isinstance(model, DDPG)
    assert isinstance(model.action_noise, NormalActionNoise)
    assert model.action_noise._sigma.tolist() == pytest.approx([0.3])
