from __future__ import annotations

from typing import Any

import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.her import HerReplayBuffer
from torch import nn

from mlflow_sb3.algorithms.hyperparams import (
    find_class,
    to_algorithm_kwargs,
    to_vec_normalize_kwargs,
)
from tests.algorithms.examples import BOX


class CustomExtractor(FlattenExtractor):
    """A features extractor that is not part of SB3."""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nn.ReLU", nn.ReLU),
        ("th.nn.ReLU", nn.ReLU),
        ("ReLU", nn.ReLU),
        ("torch.optim.Adam", torch.optim.Adam),
        ("FlattenExtractor", FlattenExtractor),
        ("HerReplayBuffer", HerReplayBuffer),
        ("tests.algorithms.test_hyperparams:CustomExtractor", CustomExtractor),
    ],
)
def test_a_class_is_found_by_its_name(name: str, expected: type) -> None:
    assert find_class(name) is expected


@pytest.mark.parametrize("name", ["nn.Nothing", "nn.functional", "json:Nothing"])
def test_an_unknown_class_is_rejected(name: str) -> None:
    with pytest.raises(
        ValueError, match=f"There is no class '{name}'. Use the name of .* SB3, or 'module:Class' "
    ):
        find_class(name)


def test_class_names_become_classes_and_the_input_is_unchanged() -> None:
    hyperparams = {"policy_kwargs": {"net_arch": [8], "activation_fn": "nn.ReLU"}}

    kwargs = to_algorithm_kwargs(hyperparams, BOX)

    assert kwargs == {"policy_kwargs": {"net_arch": [8], "activation_fn": nn.ReLU}}
    assert hyperparams == {"policy_kwargs": {"net_arch": [8], "activation_fn": "nn.ReLU"}}


def test_a_linear_schedule_decreases_to_zero() -> None:
    schedule = to_algorithm_kwargs({"learning_rate": "lin_0.004"}, BOX)["learning_rate"]

    assert [schedule(remaining) for remaining in (1.0, 0.5, 0.0)] == [0.004, 0.002, 0.0]


@pytest.mark.parametrize(
    ("hyperparams", "message"),
    [
        ({"learning_rate": "0.001"}, "learning_rate is '0.001'. Use a number, or a schedule"),
        ({"learning_rate": "lin_fast"}, "could not convert"),
        ({"noise_type": "pink"}, "noise_type is 'pink'. Use normal or ornstein-uhlenbeck"),
    ],
)
def test_an_invalid_value_is_rejected(hyperparams: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_algorithm_kwargs(hyperparams, BOX)


def test_train_freq_becomes_a_tuple() -> None:
    assert to_algorithm_kwargs({"train_freq": [1, "episode"]}, BOX) == {
        "train_freq": (1, "episode")
    }


def test_noise_has_the_shape_of_the_actions() -> None:
    hyperparams = {"noise_type": "normal", "noise_std": 0.3}

    noise = to_algorithm_kwargs(hyperparams, spaces.Box(-1, 1, (2,)))["action_noise"]

    assert isinstance(noise, NormalActionNoise)
    assert noise._sigma.tolist() == pytest.approx([0.3, 0.3])


def test_hyperparameters_of_the_vec_env_are_no_arguments_of_the_algorithm() -> None:
    assert to_algorithm_kwargs({"n_envs": 2, "normalize": True, "gamma": 0.9}, BOX) == {
        "gamma": 0.9
    }


@pytest.mark.parametrize(
    ("hyperparams", "expected"),
    [
        ({}, None),
        ({"normalize": None}, None),
        ({"normalize": False, "gamma": 0.9}, None),
        ({"normalize": True}, {}),
        ({"normalize": True, "gamma": 0.9}, {"gamma": 0.9}),
        (
            {"normalize": {"norm_reward": False}, "gamma": 0.9},
            {"norm_reward": False, "gamma": 0.9},
        ),
        ({"normalize": {"gamma": 0.5}, "gamma": 0.9}, {"gamma": 0.5}),
    ],
)
def test_vec_normalize_uses_the_discount_of_the_algorithm(
    hyperparams: dict[str, Any], expected: dict[str, Any] | None
) -> None:
    assert to_vec_normalize_kwargs(hyperparams) == expected


def test_a_text_for_normalize_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"normalize is 'yes'\. Use true, false, or arguments of"):
        to_vec_normalize_kwargs({"normalize": "yes"})
