from __future__ import annotations

import json
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecFrameStack, VecNormalize

from mlflow_sb3.envs import env_spec
from mlflow_sb3.flavor import source_env
from tests.flavor.agents import BOX, build_untrained


@pytest.mark.parametrize(
    "model",
    ["agent.zip", build_untrained(BOX, spaces.Discrete(2)).policy],
    ids=["a path", "a policy"],
)
def test_only_algorithms_are_accepted(model: Any) -> None:
    with pytest.raises(
        MlflowException, match="Pass an algorithm of stable_baselines3 or sb3_contrib"
    ):
        source_env.check_algorithm(model)


def test_a_custom_vec_env_wrapper_is_refused() -> None:
    class Halved(VecEnvWrapper):
        def __init__(self, venv: VecEnv) -> None:
            super().__init__(venv, observation_space=spaces.Box(-9, 9, (2,)))

        def reset(self) -> NDArray[Any]:
            return np.asarray(self.venv.reset())[:, :2]

        def step_wait(self) -> Any:
            observations, *rest = self.venv.step_wait()
            return np.asarray(observations)[:, :2], *rest

    with pytest.raises(
        MlflowException,
        match=r"VecEnv wrapper Halved, which cannot be exported\. Use a gymnasium\.Wrapper",
    ):
        source_env.find_source_env(
            PPO("MlpPolicy", Halved(make_vec_env("CartPole-v1")), device="cpu")
        )


def test_normalizing_twice_is_refused() -> None:
    vec_env = VecNormalize(
        VecNormalize(make_vec_env("CartPole-v1"), norm_reward=False), norm_obs=False
    )

    with pytest.raises(
        MlflowException,
        match=r"VecNormalize, VecNormalize \(from the inside\), which cannot be exported",
    ):
        source_env.find_source_env(PPO("MlpPolicy", vec_env, device="cpu"))


def test_frame_stacking_after_normalization_is_refused() -> None:
    vec_env = VecFrameStack(VecNormalize(make_vec_env("CartPole-v1")), 2)

    with pytest.raises(
        MlflowException,
        match=r"VecNormalize, VecFrameStack \(from the inside\).* Apply VecFrameStack first",
    ):
        source_env.find_source_env(PPO("MlpPolicy", vec_env, device="cpu"))


def test_the_recorded_environment_stacks_frames_like_sb3() -> None:
    model = PPO("MlpPolicy", VecFrameStack(make_vec_env("CartPole-v1"), 3), device="cpu", seed=0)

    description = str(source_env.find_source_env(model).description)

    with env_spec.make_from_spec(description) as env:
        assert env.observation_space == model.observation_space


@pytest.mark.parametrize("description", ["{}", "no JSON"])
def test_an_invalid_env_spec_is_refused(description: str) -> None:
    with pytest.raises(MlflowException, match="EnvSpec"):
        source_env.find_source_env(PPO("MlpPolicy", "CartPole-v1", device="cpu"), description)


def test_an_environment_with_other_spaces_is_refused() -> None:
    pendulum = env_spec.spec_to_json(gymnasium.spec("Pendulum-v1"))

    with pytest.raises(MlflowException, match="environment"):
        source_env.find_source_env(PPO("MlpPolicy", "CartPole-v1", device="cpu"), pendulum)


def test_a_script_records_the_same_environment_as_a_step(cartpole: str) -> None:
    described = source_env.find_source_env(
        PPO("MlpPolicy", "CartPole-v1", device="cpu")
    ).description

    assert described is not None
    assert json.loads(described) == json.loads(cartpole)


def test_an_environment_that_cannot_be_made_again_is_left_out_with_a_warning() -> None:
    env = gymnasium.make("CartPole-v1")
    env.unwrapped.spec = EnvSpec("Bogus-v0", "no_such_module:NoEnv")
    model = PPO("MlpPolicy", env, device="cpu")

    with pytest.warns(UserWarning, match=r"has no environment to play in: .*pass environment=<Env"):
        source = source_env.find_source_env(model)

    assert source.description is None
    assert source.observation_space == env.observation_space
