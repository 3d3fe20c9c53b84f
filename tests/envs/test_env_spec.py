from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, get_args

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from gymnasium.wrappers import TimeAwareObservation
from mlflow.exceptions import MlflowException
from stable_baselines3.common.monitor import Monitor

from mlflow_sb3.envs import env_spec, seeds, wrapper_config
from tests.environments import Hidden


class Unrecorded(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A wrapper that Gymnasium cannot make again."""


class Demanding(gymnasium.Env[Any, Any]):
    """An environment that asks for more than its id."""

    def __init__(self, **kwargs: Any) -> None:
        assert "size" in kwargs, "size is missing"


def test_an_environment_that_cannot_be_made_by_its_id_alone_is_refused() -> None:
    gymnasium.register("Demanding-v0", Demanding)

    with pytest.raises(
        MlflowException, match="environment 'Demanding-v0' cannot be made: size is missing"
    ):
        env_spec.make_env("Demanding-v0")


def test_an_environment_is_made_again_with_its_arguments() -> None:
    description = env_spec.spec_to_json(
        gymnasium.make("Pendulum-v1", g=3.5, max_episode_steps=7).spec
    )

    with env_spec.make_from_spec(description) as env:
        assert env.unwrapped.g == 3.5  # type: ignore[attr-defined]
        assert env.spec is not None
        assert env.spec.max_episode_steps == 7


def test_an_environment_is_made_again_with_its_wrappers() -> None:
    description = env_spec.spec_to_json(TimeAwareObservation(gymnasium.make("CartPole-v1")).spec)

    with env_spec.make_from_spec(description) as env:
        assert env.observation_space.shape == (5,)


def test_the_monitor_is_left_out() -> None:
    env = gymnasium.make("CartPole-v1")

    assert env_spec.spec_to_json(Monitor(env).spec) == env_spec.spec_to_json(env.spec)


def test_a_wrapper_that_does_not_record_is_refused() -> None:
    with pytest.raises(
        MlflowException, match=r"Unrecorded does not record its arguments.*RecordConstructorArgs"
    ):
        env_spec.spec_to_json(Unrecorded(gymnasium.make("CartPole-v1")).spec)


def test_an_environment_without_spec_is_refused() -> None:
    with pytest.raises(MlflowException, match=r"no EnvSpec.*use gymnasium\.make"):
        env_spec.spec_to_json(None)


def test_an_entry_point_that_is_a_function_is_refused() -> None:
    with pytest.raises(
        MlflowException, match=r"cannot be written down: Callable found.*Register it by entry point"
    ):
        env_spec.spec_to_json(EnvSpec("Local-v0", entry_point=lambda: None))  # type: ignore[arg-type]


@pytest.mark.parametrize("env_id", ["Nope-v1", "nowhere:Nope-v1", "not an id"])
def test_an_unknown_environment_is_refused(env_id: str) -> None:
    with pytest.raises(
        MlflowException,
        match=f"environment '{env_id}' cannot be made: .*Give the id of a registered environment",
    ):
        env_spec.make_env(env_id)


def test_an_environment_whose_package_is_missing_is_refused(cartpole: str) -> None:
    missing = json.dumps(json.loads(cartpole) | {"entry_point": "nowhere:Nothing"})

    with pytest.raises(
        MlflowException,
        match=r"CartPole-v1 \(nowhere:Nothing\) cannot be made here.*Install the package",
    ):
        env_spec.make_from_spec(missing)


def test_arguments_and_wrappers_are_recorded_and_made_again() -> None:
    wrappers: list[wrapper_config.WrapperConfig] = [
        "gymnasium.wrappers:TimeAwareObservation",
        {"tests.environments:Hidden": {"factor": 0.5}},
    ]

    description = env_spec.compose_spec(
        "Pendulum-v1", kwargs={"g": 3.5, "max_episode_steps": 7}, wrappers=wrappers
    )

    recorded = json.loads(description)
    assert (recorded["kwargs"], recorded["max_episode_steps"]) == ({"g": 3.5}, 7)
    assert [wrapper["kwargs"] for wrapper in recorded["additional_wrappers"]] == [
        {},
        {"factor": 0.5},
    ]
    with env_spec.make_from_spec(description) as env:
        assert isinstance(env, Hidden)
        assert env.factor == 0.5
        assert env.unwrapped.g == 3.5  # type: ignore[attr-defined]
        assert env.observation_space.shape == (4,)


@pytest.mark.process
def test_stacked_frames_and_named_masks_need_no_torch() -> None:
    code = (
        "import sys; from mlflow_sb3 import environment; "
        "environment.remake(environment.compose('tests.environments:Valid-v0', wrappers=["
        "{'mlflow_sb3.wrappers:ActionMasks': {'method': 'valid_actions'}}, {'mlflow_sb3.wrappers:FrameStack': {'n_stack': 2}}])); "
        "print({'torch', 'stable_baselines3'} & set(sys.modules))"
    )

    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "set()\n"
    )


def test_nothing_more_is_an_environment_by_its_id(cartpole: str) -> None:
    assert env_spec.compose_spec("CartPole-v1") == cartpole


def test_a_limit_of_steps_can_be_taken_away() -> None:
    assert (
        json.loads(env_spec.compose_spec("Pendulum-v1", kwargs={"max_episode_steps": -1}))[
            "max_episode_steps"
        ]
        is None
    )


def test_rl_zoo3_names_wrappers_with_a_dot() -> None:
    description = env_spec.compose_spec(
        "CartPole-v1", wrappers=["gymnasium.wrappers.TimeAwareObservation"]
    )

    assert (
        json.loads(description)["additional_wrappers"][0]["entry_point"]
        == "gymnasium.wrappers:TimeAwareObservation"
    )


def test_the_wrappers_of_a_registration_keep_their_arguments() -> None:
    registered = WrapperSpec("Hidden", "tests.environments:Hidden", {"factor": 3.0})
    gymnasium.register(
        "Registered-v0",
        "gymnasium.envs.classic_control.cartpole:CartPoleEnv",
        max_episode_steps=500,
        additional_wrappers=(registered,),
    )

    description = env_spec.compose_spec(
        "Registered-v0", wrappers=["gymnasium.wrappers:TimeAwareObservation"]
    )

    with env_spec.make_from_spec(description) as env:
        assert env.observation_space.shape == (5,)
        assert env.env.factor == 3.0  # type: ignore[attr-defined]


def test_an_entry_point_may_put_on_wrappers_of_its_own() -> None:
    description = env_spec.compose_spec(
        "tests.environments:WrappedCartPole-v0",
        wrappers=[{"tests.environments:Hidden": {"factor": 0.5}}],
    )

    with env_spec.make_from_spec(description) as env, gymnasium.make("CartPole-v1") as bare:
        np.testing.assert_allclose(env.reset(seed=1)[0], bare.reset(seed=1)[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("wrapper", "says"),
    [
        (
            "nowhere:Nothing",
            "wrapper nowhere:Nothing cannot be imported: No module named 'nowhere'; give 'module:Class' of a class",
        ),
        (
            "tests.environments:Nothing",
            "wrapper tests.environments:Nothing cannot be imported: module .* has no attribute 'Nothing'",
        ),
        ("Nothing", "\"Nothing\" names no wrapper; write 'module:Class'"),
        (7, "7 names no wrapper; write 'module:Class'"),
        ({"tests.environments:Hidden": 2}, "names no wrapper; write 'module:Class' or"),
        ({"a:A": {}, "b:B": {}}, "names no wrapper"),
        (
            "tests.environments:OneStep",
            "tests.environments:OneStep is no gymnasium.Wrapper, nor a function that makes one",
        ),
        ("math:pi", "math:pi is no gymnasium.Wrapper"),
        (
            "copy:deepcopy",
            "copy:deepcopy takes 'x' first, but Gymnasium hands the environment over as 'env'",
        ),
        (
            "tests.environments:Game",
            "tests.environments:Game takes 'game' first, .*; call its first parameter env",
        ),
        (
            {"tests.environments:Hidden": {"factr": 2}},
            "Hidden does not take {\"factr\": 2}: got an unexpected .* 'factr'; it takes factor",
        ),
        (
            "gymnasium.wrappers:ResizeObservation",
            "ResizeObservation does not take {}: missing a required argument: 'shape'",
        ),
        (
            "gymnasium.wrappers:GrayscaleObservation",
            "wrapper gymnasium.wrappers:GrayscaleObservation cannot wrap .*CartPole-v1",
        ),
        ("tests.environments:no_environment", "makes NoneType, which is no gymnasium.Env"),
    ],
)
def test_a_wrapper_that_cannot_be_recorded_is_refused_with_the_way_to_fix_it(
    wrapper: Any, says: str
) -> None:
    with pytest.raises(MlflowException, match=says):
        env_spec.compose_spec("CartPole-v1", wrappers=[wrapper])


def test_arguments_that_an_environment_does_not_take_are_refused() -> None:
    with pytest.raises(
        MlflowException,
        match=r'\'Pendulum-v1\' cannot be made with {"gravity": 1}: .*unexpected keyword argument \'gravity\'',
    ):
        env_spec.compose_spec("Pendulum-v1", kwargs={"gravity": 1})


def test_arguments_that_json_cannot_hold_are_refused() -> None:
    with pytest.raises(
        MlflowException,
        match=r"environment Pendulum-v1 cannot be written down: .* not JSON serializable",
    ):
        env_spec.compose_spec("Pendulum-v1", kwargs={"g": np.float32(3)})


def test_a_longer_list_of_seeds_begins_with_the_shorter_one() -> None:
    assert seeds.generate_episode_seeds(3, "gate", 100)[:10] == seeds.generate_episode_seeds(3, "gate", 10)
    assert seeds.generate_episode_seeds(3, "gate", 100)[10:] == seeds.generate_episode_seeds(3, "gate", 90, start=10)


def test_streams_and_seeds_have_nothing_in_common() -> None:
    lists = [
        seeds.generate_episode_seeds(seed, stream, 1000)
        for seed in range(3)
        for stream in get_args(seeds.SeedStream)
    ]

    assert len(set().union(*lists)) > 0.9999 * sum(map(len, lists))
    assert len({values[0] for values in lists}) == len(lists)
    assert all(0 <= value < 2**31 for values in lists for value in values)


def test_environments_are_the_same_whatever_does_not_change_an_episode(cartpole: str) -> None:
    def changed(**fields: Any) -> str:
        return json.dumps(json.loads(cartpole) | fields)

    assert env_spec.is_same_env(
        cartpole, changed(reward_threshold=None, vector_entry_point=None, nondeterministic=True)
    )
    assert env_spec.is_same_env(cartpole, changed(a_field_of_a_later_version=None))
    assert not env_spec.is_same_env(cartpole, changed(max_episode_steps=200))
    assert not env_spec.is_same_env(cartpole, changed(a_field_of_a_later_version="something"))
