from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from mlflow.exceptions import MlflowException

from mlflow_sb3.algorithms.env_check import check_env, check_spaces
from tests.algorithms.examples import BOX, IMAGE

TWO_ACTIONS = spaces.Discrete(2)
GRID = spaces.MultiDiscrete(np.array([[2, 2]]))


@pytest.mark.parametrize(
    ("algo", "action_space", "message"),
    [
        (
            "dqn",
            BOX,
            (
                r"dqn does not support the action space Box.* It supports Discrete\. "
                "Use a2c, ars, crossq, ddpg, ppo, ppo_lstm, sac, td3"
            ),
        ),
        (
            "sac",
            TWO_ACTIONS,
            (
                r"sac does not support the action space Discrete\(2\)\. It supports Box\. "
                "Use a2c, ars, dqn, ppo"
            ),
        ),
        ("ppo_mask", BOX, "It supports Discrete or MultiDiscrete or MultiBinary"),
        ("ppo", spaces.Tuple([BOX]), r"No algorithm supports these actions\. Wrap the environment"),
        ("ppo", GRID, "MultiDiscrete actions need exactly one dimension"),
        ("ppo", spaces.MultiBinary([2, 2]), "MultiBinary actions need exactly one dimension"),
        ("ppo", spaces.Box(0, 5, (2,), np.int64), "needs a float dtype and finite bounds"),
        ("ppo", spaces.Box(-np.inf, np.inf, (2,)), "needs a float dtype and finite bounds"),
    ],
)
def test_an_unsupported_action_space_is_rejected(
    algo: str, action_space: spaces.Space[Any], message: str
) -> None:
    with pytest.raises(MlflowException, match=message):
        check_spaces(algo, BOX, action_space)


@pytest.mark.parametrize(
    ("observation_space", "message"),
    [
        (
            spaces.Tuple([BOX]),
            (
                "does not support the Tuple space in .* Flatten the observations: "
                r'wrappers=\["gymnasium\.wrappers:Flatten'
            ),
        ),
        (
            spaces.Dict(a=spaces.Dict(b=BOX)),
            "does not support the Dict space in .* a Dict of these without nesting",
        ),
        (
            spaces.Dict(a=spaces.Text(3)),
            "does not support the Text space in .* Use a wrapper of the environment's package",
        ),
        (
            spaces.Sequence(BOX),
            "does not support the Sequence space in .* Use a wrapper of the environment's package",
        ),
        (GRID, "does not support the multi-dimensional MultiDiscrete space in"),
    ],
)
def test_an_unsupported_observation_space_is_rejected(
    observation_space: spaces.Space[Any], message: str
) -> None:
    with pytest.raises(MlflowException, match=message):
        check_spaces("ppo", observation_space, TWO_ACTIONS)


@pytest.mark.parametrize(
    ("algo", "observation_space", "action_space", "policy"),
    [
        ("ars", IMAGE, TWO_ACTIONS, "CnnPolicy"),
        ("ars", spaces.Dict(a=BOX), TWO_ACTIONS, "MultiInputPolicy"),
        ("crossq", spaces.Dict(a=BOX), BOX, "MultiInputPolicy"),
    ],
)
def test_an_observation_space_without_a_policy_is_rejected(
    algo: str, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], policy: str
) -> None:
    with pytest.raises(
        MlflowException,
        match=rf"{algo} has no {policy} for the observation space .*\. "
        "Use another algorithm, or flatten the observations: wrappers=",
    ):
        check_spaces(algo, observation_space, action_space)


def test_maskable_ppo_needs_action_masks() -> None:
    with pytest.raises(
        MlflowException,
        match=r"ppo_mask needs an environment with a method action_masks\(\)"
        r".*ActionMasks.*\"method\": \"valid_actions\"",
    ):
        check_env("ppo_mask", {}, gymnasium.make("CartPole-v1"))


def test_her_needs_goals() -> None:
    hyperparams = {"replay_buffer_class": "HerReplayBuffer"}

    with pytest.raises(
        MlflowException,
        match=r"HerReplayBuffer needs an environment with goals, .* "
        "with the keys observation, achieved_goal, desired_goal",
    ):
        check_env("dqn", hyperparams, gymnasium.make("CartPole-v1"))


def test_a_replay_buffer_of_a_missing_module_is_rejected() -> None:
    hyperparams = {"replay_buffer_class": "nowhere:Buffer"}

    with pytest.raises(
        MlflowException,
        match="replay_buffer_class 'nowhere:Buffer' cannot be imported: "
        r"No module named 'nowhere'\. Use",
    ):
        check_env("dqn", hyperparams, gymnasium.make("CartPole-v1"))
