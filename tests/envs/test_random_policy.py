from __future__ import annotations

from collections import Counter
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from mlflow_sb3.envs.random_policy import RandomPolicy
from tests.environments import Spaces

ACTIONS: dict[str, spaces.Space[Any]] = {
    "Discrete": spaces.Discrete(3, start=2),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiBinary": spaces.MultiBinary(4),
    "Box": spaces.Box(-2, 3, (2,)),
}


def make_env(action_space: spaces.Space[Any]) -> gymnasium.Env[Any, Any]:
    return Spaces(spaces.Box(-1, 1, (1,)), action_space)


@pytest.mark.parametrize("action_space", ACTIONS.values(), ids=list(ACTIONS))
def test_actions_are_in_the_space_and_depend_on_the_seed(
    action_space: spaces.Space[Any],
) -> None:
    observations = np.zeros((50, 1), np.float32)

    first, _ = RandomPolicy(make_env(action_space), seed=7).predict(observations)
    again, _ = RandomPolicy(make_env(action_space), seed=7).predict(observations)
    other, _ = RandomPolicy(make_env(action_space), seed=8).predict(observations)

    assert all(action_space.contains(action) for action in first)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_actions_are_uniform() -> None:
    actions, _ = RandomPolicy(make_env(spaces.Discrete(4)), seed=0).predict(np.zeros((4000, 1)))

    assert np.bincount(actions) == pytest.approx([1000] * 4, abs=100)


@pytest.mark.parametrize(
    ("action_space", "mask", "valid_actions"),
    [
        (ACTIONS["Discrete"], [0, 1, 1], {(3,), (4,)}),
        (ACTIONS["MultiDiscrete"], [1, 0, 0, 1, 1], {(0, 1), (0, 2)}),
        (
            ACTIONS["MultiBinary"],
            [1, 0, 0, 1, 1, 1, 1, 1],
            {(0, 1, third, fourth) for third in (0, 1) for fourth in (0, 1)},
        ),
    ],
    ids=["Discrete", "MultiDiscrete", "MultiBinary"],
)
def test_masked_actions_are_uniform_among_the_valid_ones(
    action_space: spaces.Space[Any], mask: list[int], valid_actions: set[tuple[int, ...]]
) -> None:
    masks = np.tile(np.array(mask, bool), (3000, 1))
    policy = RandomPolicy(make_env(action_space), seed=0, has_action_masks=True)

    actions, _ = policy.predict(np.zeros((3000, 1)), action_masks=masks)

    counts = Counter(tuple(np.ravel(action).tolist()) for action in actions)
    assert set(counts) == valid_actions
    assert list(counts.values()) == pytest.approx([3000 / len(counts)] * len(counts), abs=150)
    assert all(action_space.contains(action.astype(action_space.dtype)) for action in actions[:20])
