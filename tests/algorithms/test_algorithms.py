from __future__ import annotations

from typing import Any

import gymnasium
import pytest
from gymnasium import spaces
from mlflow.exceptions import MlflowException
from stable_baselines3 import DQN

from mlflow_sb3.algorithms.algorithms import ALGORITHMS, get_algorithm_class, get_default_policy
from tests.algorithms.examples import BOX, IMAGE, SMALL


def test_an_algorithm_is_found_by_its_name() -> None:
    assert get_algorithm_class("dqn") is DQN


def test_an_unknown_algorithm_is_rejected() -> None:
    with pytest.raises(
        MlflowException,
        match=r"Unknown algorithm 'dreamer'\. Choose one of a2c, ars, crossq, ddpg, dqn, ppo",
    ):
        get_algorithm_class("dreamer")


@pytest.mark.parametrize(
    "action_space", [BOX, spaces.Discrete(3), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2)]
)
@pytest.mark.parametrize("algo", ALGORITHMS)
def test_the_table_has_the_action_spaces_of_sb3(
    algo: str, action_space: spaces.Space[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = gymnasium.envs.registration.EnvSpec("Some-v0", "tests.environments:Spaces")
    monkeypatch.setitem(gymnasium.registry, "Some-v0", spec)
    env = gymnasium.make("Some-v0", observation_space=BOX, action_space=action_space)
    algorithm_class = get_algorithm_class(algo)
    policy = get_default_policy(algo, BOX)

    if isinstance(action_space, ALGORITHMS[algo].action_spaces):
        algorithm_class(policy, env, **SMALL[algo])
    elif algo == "ppo_lstm":
        # sb3-contrib 2.9 builds RecurrentPPO with MultiBinary actions, but cannot train it
        with pytest.raises(RuntimeError, match="can't be cast"):
            algorithm_class(policy, env, **SMALL[algo]).learn(16)
    else:
        with pytest.raises((AssertionError, NotImplementedError), match="action space"):
            algorithm_class(policy, env, **SMALL[algo])


@pytest.mark.parametrize(
    ("algo", "observation_space", "policy"),
    [
        ("ppo", BOX, "MlpPolicy"),
        ("ppo", spaces.Discrete(3), "MlpPolicy"),
        ("dqn", IMAGE, "CnnPolicy"),
        ("sac", spaces.Dict(a=IMAGE), "MultiInputPolicy"),
        ("ppo_lstm", BOX, "MlpLstmPolicy"),
        ("ppo_lstm", IMAGE, "CnnLstmPolicy"),
        ("ppo_lstm", spaces.Dict(a=BOX), "MultiInputLstmPolicy"),
    ],
)
def test_the_default_policy_depends_on_the_observation_space(
    algo: str, observation_space: spaces.Space[Any], policy: str
) -> None:
    assert get_default_policy(algo, observation_space) == policy
