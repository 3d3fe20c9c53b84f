from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import FlattenExtractor

from mlflow_sb3.inference.onnx_policy import OnnxPolicy
from tests.flavor.agents import BOX, build_untrained, build_with_extractor, export

CASES: list[tuple[type[BaseAlgorithm], spaces.Space[Any], spaces.Space[Any], set[str]]] = [
    (PPO, BOX, spaces.Discrete(3, dtype=np.int32), {"logits"}),
    (PPO, spaces.Box(-1, 1, (3, 2)), spaces.Discrete(3), {"logits"}),
    (DQN, spaces.Box(-1, 1, (3,), np.float64), spaces.Discrete(3), {"q_values"}),
    (DQN, spaces.Box(0, 9, (3,), np.int64), spaces.Discrete(3), {"q_values"}),
    (
        A2C,
        spaces.Box(0, 255, (3,), np.uint8),
        spaces.Box(-3, 1, (2,), np.float64),
        {"mean", "log_std"},
    ),
    (PPO, BOX, spaces.Box(-3, 1, (2, 2)), {"mean", "log_std"}),
    (
        SAC,
        BOX,
        spaces.Box(np.array([-1, 0]), np.array([1, 9]), dtype=np.float32),
        {"mean", "log_std"},
    ),
    (SAC, BOX, spaces.Box(-3, 1, (2,), np.float64), {"mean", "log_std"}),
    (TD3, BOX, spaces.Box(-3, 1, (2, 2)), set()),
    (DDPG, BOX, spaces.Box(-3, 1, (2,)), set()),
]


@dataclass(frozen=True)
class Case:
    model: BaseAlgorithm
    policy: OnnxPolicy
    parameters: set[str]
    observations: NDArray[Any]


@pytest.fixture(
    scope="module", params=CASES, ids=lambda case: f"{case[0].__name__} {case[1]} {case[2]}"
)
def case(request: pytest.FixtureRequest) -> Case:
    """An agent with spaces that no environment of classic control has."""
    algo, observation_space, action_space, parameters = request.param
    model = build_untrained(observation_space, action_space, algo=algo)
    observation_space.seed(1)
    observations = np.stack([observation_space.sample() for _ in range(256)])
    return Case(model, export(model).policy, parameters, observations)


@pytest.mark.train
def test_actions_equal_those_of_sb3_and_lie_in_the_action_space(case: Case) -> None:
    expected, _ = case.model.predict(case.observations, deterministic=True)

    actions, _ = case.policy.predict(case.observations)

    assert actions.dtype == case.model.action_space.dtype
    assert actions.shape == expected.shape
    assert actions == pytest.approx(expected, abs=1e-4)
    assert all(case.model.action_space.contains(action) for action in actions)


@pytest.mark.train
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_batch_size_does_not_change_actions(case: Case, batch: int) -> None:
    parts = [
        case.policy.predict(case.observations[start : start + batch])[0]
        for start in range(0, 256, batch)
    ]

    assert np.array_equal(np.concatenate(parts), case.policy.predict(case.observations)[0])


def test_the_graph_outputs_the_distribution_parameters(case: Case) -> None:
    outputs = case.policy.compute_outputs(case.observations)

    assert set(outputs) == {"action"} | case.parameters
    assert {len(values) for values in outputs.values()} == {256}


class Doubling(FlattenExtractor):
    """A custom extractor that can be exported."""

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(observations)


def test_a_custom_features_extractor_is_exported() -> None:
    assert export(build_with_extractor(Doubling)).parity.max_difference <= 1e-5


@pytest.mark.parametrize(
    "bound", [float(np.finfo(np.float32).max), float(np.finfo(np.float64).max)]
)
def test_the_space_can_have_very_large_bounds(bound: float) -> None:
    model = build_untrained(
        spaces.Box(-bound, bound, (3,), np.float64), spaces.Discrete(2), algo=DQN
    )

    assert export(model).parity.max_difference <= 1e-5


def test_the_training_mode_is_restored() -> None:
    model = PPO("MlpPolicy", "CartPole-v1", device="cpu")
    model.policy.set_training_mode(True)

    export(model)

    assert model.policy.training
