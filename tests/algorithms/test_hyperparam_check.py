from __future__ import annotations

from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from mlflow_sb3.algorithms.hyperparam_check import (
    check_hyperparams,
    get_policy,
    resolve_hyperparams,
)
from tests.algorithms.examples import BOX


@pytest.mark.parametrize(
    ("hyperparams", "message"),
    [
        (
            {"lerning_rate": 1},
            r"ppo has no hyperparameter 'lerning_rate'\. Did you mean 'learning_rate'\? Use batch",
        ),
        (
            {"noise_std": 0.1},
            (
                r"ppo has no hyperparameter 'noise_std'\. "
                r"It is a hyperparameter of crossq, ddpg, sac, td3, tqc\. Use"
            ),
        ),
        (
            {"replay_buffer_class": "HerReplayBuffer"},
            (
                "no hyperparameter 'replay_buffer_class'. "
                "It is a hyperparameter of crossq, ddpg, dqn, qrdqn, sac, td3, tqc"
            ),
        ),
        (
            {"policy": "LinearPolicy"},
            "ppo has no policy 'LinearPolicy'. Use CnnPolicy, MlpPolicy, MultiInputPolicy",
        ),
        ({"policy": ["MlpPolicy"]}, r"ppo has no policy \['MlpPolicy'\]"),
        (
            {"callback": "rl_zoo3.callbacks.RawStatisticsCallback"},
            "'callback' is not supported. Training has its own callbacks",
        ),
        (
            {"vec_env_wrapper": "a.B"},
            "'vec_env_wrapper' is not supported. .* Wrap each environment with env_wrapper",
        ),
    ],
)
def test_an_unknown_hyperparameter_or_policy_is_rejected(
    hyperparams: dict[str, Any], message: str
) -> None:
    with pytest.raises(MlflowException, match=message):
        check_hyperparams("ppo", hyperparams)


def test_hyperparameters_are_completed_with_the_defaults_of_sb3() -> None:
    hyperparams = {
        "batch_size": 7,
        "policy_kwargs": {"net_arch": [8]},
        "normalize": {"norm_reward": False},
        "replay_buffer_class": "ReplayBuffer",
    }

    resolved = resolve_hyperparams("dqn", hyperparams, BOX)

    assert resolved["batch_size"] == "7"
    assert resolved["gamma"] == "0.99"
    assert resolved["policy"] == "MlpPolicy"
    assert resolved["policy_kwargs"] == '{"net_arch": [8]}'
    assert resolved["normalize"] == '{"norm_reward": false}'
    assert resolved["replay_buffer_class"] == "ReplayBuffer"
    assert "seed" not in resolved


def test_the_default_noise_is_resolved_only_with_a_noise_type() -> None:
    assert "noise_std" not in resolve_hyperparams("ddpg", {}, BOX)
    assert resolve_hyperparams("ddpg", {"noise_type": "normal"}, BOX)["noise_std"] == "0.1"


def test_a_policy_of_the_caller_replaces_the_default() -> None:
    assert get_policy("ppo", {}, BOX) == "MlpPolicy"
    assert get_policy("ppo", {"policy": "CnnPolicy"}, BOX) == "CnnPolicy"
