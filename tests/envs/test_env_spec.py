from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from gymnasium.wrappers import TimeAwareObservation
from mlflow.exceptions import MlflowException
from stable_baselines3.common.monitor import Monitor

from mlflow_sb3.envs import env_spec, wrapper_config
from tests.environments import ScaleObservation

SCALE_OBSERVATION = "tests.environments:ScaleObservation"


class Unrecorded(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A wrapper that does not record its arguments."""


class SizedEnv(gymnasium.Env[Any, Any]):
    """An environment with a required argument."""

    def __init__(self, **kwargs: Any) -> None:
        assert "size" in kwargs, "size is missing"


def test_a_missing_argument_of_an_environment_is_reported() -> None:
    gymnasium.register("Sized-v0", SizedEnv)

    with pytest.raises(
        MlflowException, match="environment 'Sized-v0' cannot be made: size is missing"
    ):
        env_spec.make_env("Sized-v0")


@pytest.mark.parametrize("env_id", ["Nope-v1", "nowhere:Nope-v1", "not an id"])
def test_an_unknown_id_is_rejected(env_id: str) -> None:
    with pytest.raises(
        MlflowException,
        match=f"environment '{env_id}' cannot be made: .*Use the id of a registered environment",
    ):
        env_spec.make_env(env_id)


def test_an_environment_is_made_again_with_its_arguments() -> None:
    spec_json = env_spec.spec_to_json(
        gymnasium.make("Pendulum-v1", g=3.5, max_episode_steps=7).spec
    )

    with env_spec.make_from_spec(spec_json) as env:
        assert env.unwrapped.g == 3.5  # type: ignore[attr-defined]
        assert env.spec is not None
        assert env.spec.max_episode_steps == 7


def test_an_environment_is_made_again_with_its_wrappers() -> None:
    spec_json = env_spec.spec_to_json(TimeAwareObservation(gymnasium.make("CartPole-v1")).spec)

    with env_spec.make_from_spec(spec_json) as env:
        assert env.observation_space.shape == (5,)


def test_the_monitor_of_sb3_is_left_out() -> None:
    env = gymnasium.make("CartPole-v1")

    assert env_spec.spec_to_json(Monitor(env).spec) == env_spec.spec_to_json(env.spec)


def test_the_render_mode_is_left_out() -> None:
    env = gymnasium.make("CartPole-v1", render_mode="rgb_array")

    assert json.loads(env_spec.spec_to_json(env.spec))["kwargs"] == {}


def test_a_wrapper_that_does_not_record_its_arguments_is_rejected() -> None:
    with pytest.raises(
        MlflowException, match=r"Unrecorded does not record its arguments.*RecordConstructorArgs"
    ):
        env_spec.spec_to_json(Unrecorded(gymnasium.make("CartPole-v1")).spec)


def test_an_environment_without_a_spec_is_rejected() -> None:
    with pytest.raises(MlflowException, match=r"no EnvSpec.*make it with gymnasium\.make"):
        env_spec.spec_to_json(None)


def test_a_function_as_entry_point_is_rejected() -> None:
    spec = EnvSpec("Local-v0", entry_point=lambda: None)  # type: ignore[arg-type]

    with pytest.raises(
        MlflowException,
        match=r"cannot be converted to JSON: Callable found.*Register it with an entry point",
    ):
        env_spec.spec_to_json(spec)


def test_a_missing_package_of_an_environment_is_named(cartpole: str) -> None:
    missing = json.dumps(json.loads(cartpole) | {"entry_point": "nowhere:Nothing"})

    with pytest.raises(
        MlflowException,
        match=r"nowhere:Nothing is not imported, .* Install the package of the environment",
    ):
        env_spec.make_from_spec(missing)


def test_an_id_alone_gives_the_spec_of_the_environment(cartpole: str) -> None:
    assert env_spec.compose_spec("CartPole-v1") == cartpole


def test_arguments_and_wrappers_are_recorded_and_made_again() -> None:
    wrappers: list[wrapper_config.WrapperConfig] = [
        "gymnasium.wrappers:TimeAwareObservation",
        {SCALE_OBSERVATION: {"factor": 0.5}},
    ]

    spec_json = env_spec.compose_spec(
        "Pendulum-v1", kwargs={"g": 3.5, "max_episode_steps": 7}, wrappers=wrappers
    )

    spec = json.loads(spec_json)
    assert (spec["kwargs"], spec["max_episode_steps"]) == ({"g": 3.5}, 7)
    assert env_spec.list_wrappers(spec_json) == [
        {"gymnasium.wrappers:TimeAwareObservation": {}},
        {SCALE_OBSERVATION: {"factor": 0.5}},
    ]
    with env_spec.make_from_spec(spec_json) as env:
        assert isinstance(env, ScaleObservation)
        assert env.factor == 0.5
        assert env.unwrapped.g == 3.5  # type: ignore[attr-defined]
        assert env.observation_space.shape == (4,)


@pytest.mark.process
def test_the_wrappers_of_this_package_do_not_import_torch() -> None:
    code = """
import sys
from mlflow_sb3.envs import env_spec

wrappers = [
    {"mlflow_sb3.wrappers:ActionMasks": {"method": "valid_actions"}},
    {"mlflow_sb3.wrappers:FrameStack": {"n_stack": 2}},
]
spec_json = env_spec.compose_spec("tests.environments:Valid-v0", wrappers=wrappers)
env_spec.make_from_spec(spec_json)
print({"torch", "stable_baselines3"} & set(sys.modules))
"""
    command = [sys.executable, "-c", code]

    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert output == "set()\n"


def test_a_time_limit_can_be_removed() -> None:
    spec_json = env_spec.compose_spec("Pendulum-v1", kwargs={"max_episode_steps": -1})

    assert json.loads(spec_json)["max_episode_steps"] is None


def test_a_wrapper_in_the_notation_of_rl_zoo3_is_recorded_in_that_of_gymnasium() -> None:
    spec_json = env_spec.compose_spec(
        "CartPole-v1", wrappers=["gymnasium.wrappers.TimeAwareObservation"]
    )

    assert env_spec.list_wrappers(spec_json) == [{"gymnasium.wrappers:TimeAwareObservation": {}}]


def test_the_wrappers_of_a_registration_keep_their_arguments() -> None:
    gymnasium.register(
        "Registered-v0",
        "gymnasium.envs.classic_control.cartpole:CartPoleEnv",
        max_episode_steps=500,
        additional_wrappers=(WrapperSpec("Scale", SCALE_OBSERVATION, {"factor": 3.0}),),
    )

    spec_json = env_spec.compose_spec(
        "Registered-v0", wrappers=["gymnasium.wrappers:TimeAwareObservation"]
    )

    with env_spec.make_from_spec(spec_json) as env:
        assert env.observation_space.shape == (5,)
        assert env.env.factor == 3.0  # type: ignore[attr-defined]


def test_an_entry_point_may_add_wrappers() -> None:
    spec_json = env_spec.compose_spec(
        "tests.environments:WrappedCartPole-v0",
        wrappers=[{SCALE_OBSERVATION: {"factor": 0.5}}],
    )

    with env_spec.make_from_spec(spec_json) as env, gymnasium.make("CartPole-v1") as bare_env:
        np.testing.assert_allclose(env.reset(seed=1)[0], bare_env.reset(seed=1)[0], rtol=1e-6)


def test_an_invalid_wrapper_is_rejected() -> None:
    with pytest.raises(MlflowException, match="wrapper nowhere:Nothing cannot be imported"):
        env_spec.compose_spec("CartPole-v1", wrappers=["nowhere:Nothing"])


def test_an_unexpected_argument_of_an_environment_is_rejected() -> None:
    with pytest.raises(
        MlflowException,
        match=r"'Pendulum-v1' cannot be made with {\"gravity\": 1}: .*unexpected keyword argument "
        r"'gravity'.* Use only env_kwargs that the constructor of the environment accepts",
    ):
        env_spec.compose_spec("Pendulum-v1", kwargs={"gravity": 1})


def test_an_argument_that_json_cannot_represent_is_rejected() -> None:
    with pytest.raises(
        MlflowException,
        match=r"environment Pendulum-v1 cannot be converted to JSON: .* not JSON serializable",
    ):
        env_spec.compose_spec("Pendulum-v1", kwargs={"g": np.float32(3)})


def test_environments_are_the_same_if_their_episodes_are(cartpole: str) -> None:
    def change(**fields: Any) -> str:
        return json.dumps(json.loads(cartpole) | fields)

    assert env_spec.is_same_env(
        cartpole, change(reward_threshold=None, vector_entry_point=None, nondeterministic=True)
    )
    assert env_spec.is_same_env(cartpole, change(field_of_a_later_version=None))
    assert not env_spec.is_same_env(cartpole, change(max_episode_steps=200))
    assert not env_spec.is_same_env(cartpole, change(field_of_a_later_version="something"))
