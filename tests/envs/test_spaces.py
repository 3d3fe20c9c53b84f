from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from mlflow_sb3.envs.spaces import (
    describe_space,
    get_action_sizes,
    get_input_spaces,
    get_space_start,
    is_compatible,
    rebuild_space,
)
from mlflow_sb3.inference.policy_inputs import SpaceInfo

IMAGE = spaces.Box(0, 255, (36, 40, 3), np.uint8)
TRANSPOSED_IMAGE = spaces.Box(0, 255, (3, 36, 40), np.uint8)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(4, start=2),
        spaces.MultiDiscrete([2, 3], start=[4, -1]),
        spaces.MultiBinary(4),
        spaces.MultiBinary((2, 3)),
        spaces.Box(-np.inf, np.inf, (3,)),
        IMAGE,
        spaces.Dict(image=IMAGE, number=spaces.Discrete(3, start=-1)),
    ],
    ids=str,
)
def test_a_space_is_rebuilt_from_json(space: spaces.Space[Any]) -> None:
    text = json.dumps(asdict(describe_space(space)))

    assert rebuild_space(SpaceInfo.from_json(json.loads(text))) == space


def test_a_rebuilt_box_has_no_bounds() -> None:
    box = rebuild_space(describe_space(spaces.Box(-1, 1, (2,))))

    assert box == spaces.Box(-np.inf, np.inf, (2,))


def test_the_start_of_a_space_is_none_if_values_start_at_zero() -> None:
    starts = get_space_start(spaces.MultiDiscrete([2, 3], start=[4, 0]))

    assert starts is not None
    assert starts.tolist() == [4, 0]
    assert get_space_start(spaces.Discrete(3)) is None
    assert get_space_start(spaces.Box(1, 2, (1,))) is None


@pytest.mark.parametrize(
    ("space", "sizes"),
    [
        (spaces.Discrete(3, start=5), [3]),
        (spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])), [2, 3, 4, 5]),
        (spaces.MultiBinary(3), [2, 2, 2]),
    ],
)
def test_each_integer_of_an_action_has_a_size(space: spaces.Space[Any], sizes: list[int]) -> None:
    assert get_action_sizes(space) == sizes


def test_each_key_of_a_dict_is_an_input() -> None:
    assert get_input_spaces(IMAGE) == {"observation": IMAGE}
    assert get_input_spaces(spaces.Dict(image=IMAGE)) == {"observation.image": IMAGE}


@pytest.mark.parametrize(
    ("env_space", "policy_space"),
    [
        (IMAGE, IMAGE),
        (IMAGE, TRANSPOSED_IMAGE),
        (IMAGE, spaces.Box(0, 1, (36, 40, 3), np.float32)),
        (spaces.Discrete(3, start=2), spaces.Discrete(3)),
        (spaces.MultiDiscrete([2, 3], start=[1, 1]), spaces.MultiDiscrete([2, 3])),
        (spaces.Dict(a=IMAGE), spaces.Dict(a=TRANSPOSED_IMAGE)),
    ],
)
def test_spaces_are_compatible_after_the_conversions_of_sb3(
    env_space: spaces.Space[Any], policy_space: spaces.Space[Any]
) -> None:
    assert is_compatible(env_space, policy_space)


@pytest.mark.parametrize(
    ("env_space", "policy_space"),
    [
        (IMAGE, spaces.Box(0, 255, (40, 36, 3), np.uint8)),
        (spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (4,))),
        (spaces.Discrete(3), spaces.Discrete(4)),
        (spaces.Discrete(3), spaces.MultiDiscrete([3])),
        (spaces.Dict(a=IMAGE), spaces.Dict(b=IMAGE)),
    ],
)
def test_other_spaces_are_not_compatible(
    env_space: spaces.Space[Any], policy_space: spaces.Space[Any]
) -> None:
    assert not is_compatible(env_space, policy_space)
