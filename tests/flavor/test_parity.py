from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm

from mlflow_sb3.flavor import parity, parity_inputs, source_env
from mlflow_sb3.inference.agent_files import Parity
from mlflow_sb3.inference.onnx_policy import OnnxPolicy
from tests.flavor.agents import BOX, build_untrained, export, find_action_bias


def check(model: BaseAlgorithm, policy: OnnxPolicy, observations: NDArray[Any]) -> Parity:
    return parity.check_parity(
        model,
        policy,
        source_env.find_source_env(model),
        parity_inputs.ParityInputs(observations, 0),
    )


ALGORITHMS: list[tuple[type[BaseAlgorithm], spaces.Space[Any]]] = [
    (PPO, spaces.Discrete(3)),
    (DQN, spaces.Discrete(3)),
    (A2C, spaces.Box(-3, 1, (2,))),
    (SAC, spaces.Box(-3, 1, (2,))),
    (TD3, spaces.Box(-3, 1, (2,))),
]


@pytest.mark.train
@pytest.mark.parametrize(("algo", "action_space"), ALGORITHMS, ids=str)
def test_one_changed_weight_is_detected(
    algo: type[BaseAlgorithm], action_space: spaces.Space[Any]
) -> None:
    model = build_untrained(BOX, action_space, algo=algo)
    policy = export(model).policy
    with torch.no_grad():
        find_action_bias(model)[0] += 0.01

    with pytest.raises(
        MlflowException,
        match=r"differs from stable_baselines3 by .*\(allowed: 1e-05\).*Nothing was saved",
    ):
        check(model, policy, sample(BOX))


def sample(space: gymnasium.Space[Any]) -> NDArray[Any]:
    return np.asarray(parity_inputs.sample_observations(space, 256))


def test_nan_weights_are_refused() -> None:
    model = build_untrained(BOX, spaces.Discrete(2), algo=DQN)
    with torch.no_grad():
        find_action_bias(model)[:] = torch.nan

    with pytest.raises(MlflowException, match="differs from stable_baselines3 by nan"):
        export(model)


def test_rounding_errors_of_large_terms_are_tolerated() -> None:
    """A value near zero can be the difference of large terms, and has their rounding errors."""
    model = build_untrained(BOX, spaces.Discrete(2), algo=DQN)
    weight, bias = list(model.policy.get_submodule("q_net.q_net").parameters())[-2:]
    with torch.no_grad():
        weight[:] = weight[0] * 1e5
        bias[:] = 0

    assert export(model).parity.max_difference < 1e-6


def test_an_action_may_differ_if_sb3_rates_both_equally() -> None:
    model, other = (
        build_untrained(BOX, spaces.Discrete(2)),
        build_untrained(BOX, spaces.Discrete(2)),
    )
    for undecided, bias in ((model, 0.0), (other, 1e-6)):
        with torch.no_grad():
            torch.nn.init.zeros_(dict(undecided.policy.named_parameters())["action_net.weight"])
            find_action_bias(undecided)[:] = torch.tensor([0.0, bias])
    policy = export(other).policy

    agreement = check(model, policy, np.zeros((256, 3), np.float32))

    assert agreement.ties == 256
    assert agreement.max_difference <= 1e-6


def test_without_values_an_action_that_differs_is_wrong() -> None:
    """A policy of an unknown class outputs no values that could show a tie."""
    expected, actual = np.array([0, 1]), np.array([0, 2])

    gaps = parity._compute_gaps(np.empty((2, 0)), spaces.Discrete(3), expected, actual)

    assert parity._count_differences(gaps, expected, actual) == (1, 0)
