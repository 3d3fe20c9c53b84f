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
LAST = spaces.Box(0, 255, (36, 40, 3), np.uint8)
FIRST = spaces.Box(0, 255, (3, 36, 40), np.uint8)
FLOATS = spaces.Box(0, 1, (3, 36, 40), np.float32)


class Repeatable(Spaces):
    """Goes on sampling from one episode to the next, in a space of its own."""

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        super().__init__(deepcopy(observation_space), spaces.Discrete(2))
        self.observation_space.seed(5)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        del seed, options
        self.steps = 0
        return self.observation_space.sample(), {}


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(other, dict):
        assert set(one) == set(other)
        for key, value in other.items():
            assert_equal(one[key], value)
    else:
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("space", "order"),
    [
        (VECTOR, None),
        (LAST, None),
        (FIRST, None),
        (FLOATS, None),
        (FLOATS, "first"),
        (LAST, "first"),
        (spaces.Dict(vector=VECTOR, image=FIRST), None),
        (spaces.Dict(vector=VECTOR, image=FLOATS), {"vector": None, "image": "first"}),
    ],
)
@pytest.mark.parametrize("n_stack", [1, 2, 4])
def test_frames_are_stacked_as_in_sb3(space: spaces.Space[Any], order: Any, n_stack: int) -> None:
    ours = FrameStack(Repeatable(space), n_stack, order)
    sb3 = VecFrameStack(DummyVecEnv([lambda: Repeatable(space)]), n_stack, order)
    assert ours.observation_space == sb3.observation_space

    observation, _ = ours.reset()
    stacked: Any = sb3.reset()
    for _ in range(10):
        assert_equal(observation, first(stacked))
        observation, _, terminated, truncated, _ = ours.step(np.int64(0))
        stacked, _, dones, infos = sb3.step(np.zeros(1, np.int64))
        assert dones[0] == (terminated or truncated)
        if dones[0]:
            assert_equal(observation, infos[0]["terminal_observation"])
            observation, _ = ours.reset()


def first(batch: Any) -> Any:
    return {key: value[0] for key, value in batch.items()} if isinstance(batch, dict) else batch[0]


def test_a_stack_keeps_what_it_gave() -> None:
    env = FrameStack(Spaces(VECTOR, spaces.Discrete(2)), 2)
    observation, _ = env.reset(seed=0)
    before = observation.copy()

    env.step(np.int64(0))

    np.testing.assert_array_equal(observation, before)


@pytest.mark.parametrize(
    ("space", "arguments", "error", "says"),
    [
        (
            VECTOR,
            {"n_stack": 0},
            ValueError,
            "n_stack=0: give the number of observations to stack, at least 1",
        ),
        (VECTOR, {"n_stack": "four"}, ValueError, "n_stack='four'"),
        (
            VECTOR,
            {"n_stack": 2, "channels_order": "middle"},
            ValueError,
            "channels_order='middle': give 'first' or 'last'",
        ),
        (
            VECTOR,
            {"n_stack": 2, "channels_order": {"a": "last"}},
            ValueError,
            "or one for every key of",
        ),
        (
            spaces.Dict(a=VECTOR),
            {"n_stack": 2, "channels_order": {"b": "last"}},
            ValueError,
            "or one for every key of Dict",
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
            "cannot be stacked; that takes a Box, or a Dict of Boxes",
        ),
    ],
)
def test_what_cannot_be_stacked_is_refused(
    space: spaces.Space[Any], arguments: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        FrameStack(Spaces(space, spaces.Discrete(2)), **arguments)


def test_spaces_count_from_zero_in_every_part() -> None:
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
def test_spaces_that_count_from_zero_stay_themselves(space: spaces.Space[Any]) -> None:
    assert to_zero_start(space) is space


def test_values_are_shifted_on_their_way_in_and_out() -> None:
    env = ZeroStart(Shifted())  # which refuses an action outside of its space
    observation, _ = env.reset(seed=0)

    observations = [observation, *(env.step(action)[0] for action in np.arange(3))]

    assert all(env.observation_space.contains(observation) for observation in observations)
    with pytest.raises(AssertionError):
        env.step(np.int64(3))


class Goals(gymnasium.Env[Any, Any]):
    """Goals that count from 3; the reward is their sum."""

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


def test_goals_are_rewarded_as_the_environment_knows_them() -> None:
    rewards = ZeroStart(Goals()).compute_reward(np.array([0, 1]), np.array([0, 3]), {})

    assert rewards.tolist() == [6, 10]


def test_masks_come_from_the_method_that_is_named() -> None:
    env = ActionMasks(gymnasium.make("tests.environments:Valid-v0"), "valid_actions")

    assert env.get_wrapper_attr("action_masks")().tolist() == Valid().valid_actions().tolist()


def test_masks_from_nowhere_are_refused() -> None:
    with pytest.raises(AttributeError, match="nowhere"):
        ActionMasks(Valid(), "nowhere")
