from __future__ import annotations

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


def env_of(action_space: spaces.Space[Any]) -> gymnasium.Env[Any, Any]:
    return Spaces(spaces.Box(-1, 1, (1,)), action_space)


@pytest.mark.parametrize("action_space", ACTIONS.values(), ids=list(ACTIONS))
def test_actions_lie_in_their_space_and_follow_from_the_seed(
    action_space: spaces.Space[Any],
) -> None:
    observations = np.zeros((50, 1), np.float32)

    first, _ = RandomPolicy(env_of(action_space), seed=7).predict(observations)
    again, _ = RandomPolicy(env_of(action_space), seed=7).predict(observations)
    other, _ = RandomPolicy(env_of(action_space), seed=8).predict(observations)

    assert all(action_space.contains(action) for action in first)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_actions_are_uniform() -> None:
    actions, _ = RandomPolicy(env_of(spaces.Discrete(4)), seed=0).predict(np.zeros((4000, 1)))

    assert np.bincount(actions) == pytest.approx([1000] * 4, abs=100)


@pytest.mark.parametrize("name", ["Discrete", "MultiDiscrete", "MultiBinary"])
def test_masked_actions_are_uniform_over_what_is_allowed(name: str) -> None:
    allowed = {
        "Discrete": [0, 1, 1],
        "MultiDiscrete": [1, 0, 0, 1, 1],
        "MultiBinary": [1, 0, 0, 1, 1, 1, 1, 1],
    }[name]
    masks = np.tile(np.array(allowed, bool), (3000, 1))
    policy = RandomPolicy(env_of(ACTIONS[name]), seed=0, has_action_masks=True)

    actions, _ = policy.predict(np.zeros((3000, 1)), action_masks=masks)

    seen = {tuple(np.ravel(action).tolist()): 0 for action in actions}
    for action in actions:
        seen[tuple(np.ravel(action).tolist())] += 1
    expected = {
        "Discrete": {(3,), (4,)},
        "MultiDiscrete": {(0, 1), (0, 2)},
        "MultiBinary": {(0, 1, one, other) for one in (0, 1) for other in (0, 1)},
    }[name]
    assert set(seen) == expected
    assert all(
        ACTIONS[name].contains(action.astype(ACTIONS[name].dtype)) for action in actions[:20]
    )
    assert list(seen.values()) == pytest.approx([3000 / len(expected)] * len(expected), abs=150)
