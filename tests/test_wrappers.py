from __future__ import annotations

from copy import deepcopy
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from mlflow_sb3.wrappers import ActionMasks, FrameStack, ZeroStart, to_zero_start
from tests.environments import Shifted, Spaces, Valid

VECTOR = spaces.Box(-1, np.arange(1, 4, dtype=np.float32), (3,))
CHANNEL_LAST = spaces.Box(0, 255, (36, 40, 3), np.uint8)
CHANNEL_FIRST = spaces.Box(0, 255, (3, 36, 40), np.uint8)
FLOAT_IMAGE = spaces.Box(0, 1, (3, 36, 40), np.float32)


class RepeatableObservations(Spaces):
    """An environment with the same sequence of observations in each instance.

    ``reset`` ignores its seed, because a ``VecEnv`` passes seeds of its own.
    """

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        super().__init__(deepcopy(observation_space), spaces.Discrete(2))
        self.observation_space.seed(5)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        del seed, options
        self.steps = 0
        return self.observation_space.sample(), {}


def assert_equal(actual: Any, expected: Any) -> None:
    """Compare arrays, or dicts of arrays, with their dtypes."""
    if isinstance(expected, dict):
        assert set(actual) == set(expected)
        for key, value in expected.items():
            assert_equal(actual[key], value)
    else:
        assert actual.dtype == expected.dtype
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    ("space", "order"),
    [
        (VECTOR, None),
        (CHANNEL_LAST, None),
        (CHANNEL_FIRST, None),
        (FLOAT_IMAGE, None),
        (FLOAT_IMAGE, "first"),
        (CHANNEL_LAST, "first"),
        (spaces.Dict(vector=VECTOR, image=CHANNEL_FIRST), None),
        (spaces.Dict(vector=VECTOR, image=FLOAT_IMAGE), {"vector": None, "image": "first"}),
    ],
)
@pytest.mark.parametrize("n_stack", [1, 2, 4])
def test_observations_are_stacked_like_in_sb3(
    space: spaces.Space[Any], order: Any, n_stack: int
) -> None:
    ours = FrameStack(RepeatableObservations(space), n_stack, order)
    sb3 = VecFrameStack(DummyVecEnv([lambda: RepeatableObservations(space)]), n_stack, order)
    assert ours.observation_space == sb3.observation_space

    observation, _ = ours.reset()
    stacked: Any = sb3.reset()
    for _ in range(10):
        assert_equal(observation, get_first(stacked))
        observation, _, terminated, truncated, _ = ours.step(np.int64(0))
        stacked, _, dones, infos = sb3.step(np.zeros(1, np.int64))
        assert dones[0] == (terminated or truncated)
        if dones[0]:
            assert_equal(observation, infos[0]["terminal_observation"])
            observation, _ = ours.reset()


def get_first(batch: Any) -> Any:
    """Return the observation of the first environment of a ``VecEnv``."""
    if isinstance(batch, dict):
        return {key: value[0] for key, value in batch.items()}
    return batch[0]


def test_a_step_does_not_change_an_earlier_observation() -> None:
    env = FrameStack(Spaces(VECTOR, spaces.Discrete(2)), 2)
    observation, _ = env.reset(seed=0)
    before = observation.copy()

    env.step(np.int64(0))

    np.testing.assert_array_equal(observation, before)


@pytest.mark.parametrize(
    ("space", "arguments", "error", "message"),
    [
        (
            VECTOR,
            {"n_stack": 0},
            ValueError,
            "n_stack=0 is invalid. Use an integer of at least 1",
        ),
        (VECTOR, {"n_stack": "four"}, ValueError, "n_stack='four'"),
        (
            VECTOR,
            {"n_stack": 2, "channels_order": "middle"},
            ValueError,
            "channels_order='middle' is invalid. Use 'first', 'last' or None",
        ),
        (
            VECTOR,
            {"n_stack": 2, "channels_order": {"a": "last"}},
            ValueError,
            "channels_order={'a': 'last'} does not have the keys of Box",
        ),
        (
            spaces.Dict(a=VECTOR),
            {"n_stack": 2, "channels_order": {"b": "last"}},
            ValueError,
            "does not have the keys of Dict.* Use one value for all observations",
        ),
        (
            spaces.Discrete(4),
            {"n_stack": 2},
            TypeError,
            r"observations of Discrete\(4\) cannot be stacked",
        ),
        (
            spaces.Dict(a=VECTOR, b=spaces.MultiBinary(2)),
            {"n_stack": 2},
            TypeError,
            "cannot be stacked. Use a Box space with at least one dimension",
        ),
    ],
)
def test_invalid_arguments_are_rejected(
    space: spaces.Space[Any], arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        FrameStack(Spaces(space, spaces.Discrete(2)), **arguments)


def test_every_part_of_a_space_starts_at_zero() -> None:
    env = Shifted()

    zeroed = to_zero_start(env.observation_space)

    assert zeroed == spaces.Dict(
        die=spaces.Discrete(6), pair=spaces.MultiDiscrete([2, 3]), box=spaces.Box(-1, 1, (2,))
    )
    assert to_zero_start(env.action_space) == spaces.Discrete(3)
    assert env.observation_space == Shifted().observation_space


@pytest.mark.parametrize(
    "space", [VECTOR, spaces.Discrete(3), spaces.Dict(a=spaces.MultiDiscrete([2, 2]))]
)
def test_a_space_that_starts_at_zero_is_not_copied(space: spaces.Space[Any]) -> None:
    assert to_zero_start(space) is space


def test_actions_and_observations_are_shifted() -> None:
    env = ZeroStart(Shifted())  # Shifted raises an error for an invalid action.
    observation, _ = env.reset(seed=0)

    observations = [observation, *(env.step(action)[0] for action in np.arange(3))]

    assert all(env.observation_space.contains(observation) for observation in observations)
    with pytest.raises(AssertionError):
        env.step(np.int64(3))


class Goals(gymnasium.Env[Any, Any]):
    """Goals that start at 3. The reward is their sum."""

    observation_space = spaces.Dict(
        {
            key: spaces.Discrete(4, start=3)
            for key in ("observation", "achieved_goal", "desired_goal")
        }
    )
    action_space = spaces.Discrete(2)

    def compute_reward(
        self, achieved: NDArray[np.int64], desired: NDArray[np.int64], _info: Any
    ) -> NDArray[np.int64]:
        return achieved + desired


def test_the_reward_is_computed_from_the_goals_of_the_environment() -> None:
    rewards = ZeroStart(Goals()).compute_reward(np.array([0, 1]), np.array([0, 3]), {})

    assert rewards.tolist() == [6, 10]


def test_masks_come_from_the_named_method() -> None:
    env = ActionMasks(gymnasium.make("tests.environments:Valid-v0"), "valid_actions")

    assert env.get_wrapper_attr("action_masks")().tolist() == Valid().valid_actions().tolist()


def test_a_missing_method_is_rejected() -> None:
    with pytest.raises(AttributeError, match="nowhere"):
        ActionMasks(Valid(), "nowhere")
