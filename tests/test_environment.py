from __future__ import annotations

import json
from typing import Any, get_args

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import TimeAwareObservation
from mlflow.exceptions import MlflowException
from stable_baselines3.common.monitor import Monitor

from mlflow_sb3 import environment


class Unrecorded(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A wrapper that Gymnasium cannot make again."""


class Demanding(gymnasium.Env[Any, Any]):
    """An environment that asks for more than its id."""

    def __init__(self, **kwargs: Any) -> None:
        assert "size" in kwargs, "size is missing"


def test_an_environment_that_cannot_be_made_by_its_id_alone_is_refused() -> None:
    gymnasium.register("Demanding-v0", Demanding)

    with pytest.raises(MlflowException, match="environment 'Demanding-v0' cannot be made: size is missing"):
        environment.make("Demanding-v0")


def test_an_environment_is_made_again_with_its_arguments() -> None:
    description = environment.describe(gymnasium.make("Pendulum-v1", g=3.5, max_episode_steps=7).spec)

    with environment.remake(description) as env:
        assert env.unwrapped.g == 3.5  # type: ignore[attr-defined]
        assert env.spec is not None
        assert env.spec.max_episode_steps == 7


def test_an_environment_is_made_again_with_its_wrappers() -> None:
    description = environment.describe(TimeAwareObservation(gymnasium.make("CartPole-v1")).spec)

    with environment.remake(description) as env:
        assert env.observation_space.shape == (5,)


def test_the_monitor_is_left_out() -> None:
    env = gymnasium.make("CartPole-v1")

    assert environment.describe(Monitor(env).spec) == environment.describe(env.spec)


def test_a_wrapper_that_does_not_record_is_refused() -> None:
    with pytest.raises(MlflowException, match=r"Unrecorded does not record its arguments.*RecordConstructorArgs"):
        environment.describe(Unrecorded(gymnasium.make("CartPole-v1")).spec)


def test_an_environment_without_spec_is_refused() -> None:
    with pytest.raises(MlflowException, match=r"no EnvSpec.*use gymnasium\.make"):
        environment.describe(None)


def test_an_entry_point_that_is_a_function_is_refused() -> None:
    with pytest.raises(MlflowException, match=r"cannot be written down: Callable found.*Register it by entry point"):
        environment.describe(EnvSpec("Local-v0", entry_point=lambda: None))  # type: ignore[arg-type]


@pytest.mark.parametrize("env_id", ["Nope-v1", "nowhere:Nope-v1", "not an id"])
def test_an_unknown_environment_is_refused(env_id: str) -> None:
    with pytest.raises(MlflowException, match=f"environment '{env_id}' cannot be made: .*Give the id of a registered environment"):
        environment.make(env_id)


def test_an_environment_whose_package_is_missing_is_refused(cartpole: str) -> None:
    missing = json.dumps(json.loads(cartpole) | {"entry_point": "nowhere:Nothing"})

    with pytest.raises(MlflowException, match=r"CartPole-v1 \(nowhere:Nothing\) cannot be made here.*Install the package"):
        environment.remake(missing)


def test_a_longer_list_of_seeds_begins_with_the_shorter_one() -> None:
    assert environment.seeds(3, "gate", 100)[:10] == environment.seeds(3, "gate", 10)
    assert environment.seeds(3, "gate", 100)[10:] == environment.seeds(3, "gate", 90, start=10)


def test_streams_and_seeds_have_nothing_in_common() -> None:
    lists = [environment.seeds(seed, stream, 1000) for seed in range(3) for stream in get_args(environment.Stream)]

    assert len(set().union(*lists)) > 0.9999 * sum(map(len, lists))
    assert len({values[0] for values in lists}) == len(lists)
    assert all(0 <= value < 2**31 for values in lists for value in values)
