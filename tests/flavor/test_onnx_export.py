from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecFrameStack, VecNormalize

from mlflow_sb3.envs import env_spec
from mlflow_sb3.flavor import model_writer, onnx_export, source_env
from mlflow_sb3.inference.onnx_policy import OnnxPolicy
from tests.environments import Spaces

BOX = spaces.Box(-1, 1, (3,))


def untrained(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    algo: type[BaseAlgorithm] = PPO,
    policy: str = "MlpPolicy",
) -> BaseAlgorithm:
    return algo(policy, Spaces(observation_space, action_space), device="cpu", seed=0)  # type: ignore[call-arg]


def exported(model: BaseAlgorithm) -> OnnxPolicy:
    return onnx_export.export_policy(model, source_env.find_source_env(model)).policy


def compare(
    model: BaseAlgorithm, policy: OnnxPolicy, observations: NDArray[Any]
) -> onnx_export.Parity:
    return onnx_export.check_parity(
        model, policy, source_env.find_source_env(model), onnx_export.ParityInputs(observations, 0)
    )


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
    """An agent of spaces that classic control does not have."""
    algo, observation_space, action_space, parameters = request.param
    model = untrained(observation_space, action_space, algo=algo)
    observation_space.seed(1)
    observations = np.stack([observation_space.sample() for _ in range(256)])
    return Case(model, exported(model), parameters, observations)


def test_actions_lie_in_the_action_space_and_are_those_of_sb3(case: Case) -> None:
    expected, _ = case.model.predict(case.observations, deterministic=True)

    actions, _ = case.policy.predict(case.observations)

    assert actions.dtype == case.model.action_space.dtype
    assert actions.shape == expected.shape
    assert actions == pytest.approx(expected, abs=1e-4)
    assert all(case.model.action_space.contains(action) for action in actions)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_an_observation_gets_the_same_action_in_a_batch_of_any_size(case: Case, batch: int) -> None:
    parts = [
        case.policy.predict(case.observations[start : start + batch])[0]
        for start in range(0, 256, batch)
    ]

    assert np.array_equal(np.concatenate(parts), case.policy.predict(case.observations)[0])


def test_the_parameters_of_the_distribution_are_in_the_graph(case: Case) -> None:
    outputs = case.policy.outputs(case.observations)

    assert set(outputs) == {"action"} | case.parameters
    assert {len(values) for values in outputs.values()} == {256}


def test_one_changed_weight_is_found(case: Case) -> None:
    weight = acting(case.model)
    with torch.no_grad():
        weight[0] += 0.01

    with pytest.raises(
        MlflowException,
        match=r"differs from stable_baselines3 by .*\(allowed: 1e-05\).*nothing was saved",
    ):
        compare(case.model, case.policy, case.observations)

    with torch.no_grad():
        weight[0] -= 0.01


def acting(model: BaseAlgorithm) -> torch.nn.Parameter:
    """The bias of the layer that decides."""
    names = ("action_net.bias", "actor.mu.bias", "actor.mu.4.bias", "q_net.q_net.4.bias")
    return next(weight for name, weight in model.policy.named_parameters() if name in names)


def test_weights_that_are_not_numbers_are_refused() -> None:
    model = untrained(BOX, spaces.Discrete(2), algo=DQN)
    with torch.no_grad():
        acting(model)[:] = torch.nan

    with pytest.raises(MlflowException, match="differs from stable_baselines3 by nan"):
        exported(model)


def test_values_near_zero_are_judged_by_the_size_that_values_have() -> None:
    """Large terms leave their rounding behind where they cancel out."""
    model = untrained(BOX, spaces.Discrete(2), algo=DQN)
    weight, bias = list(model.policy.get_submodule("q_net.q_net").parameters())[-2:]
    with torch.no_grad():
        weight[:] = weight[0] * 1e5
        bias[:] = 0

    assert (
        onnx_export.export_policy(model, source_env.find_source_env(model)).parity.max_difference
        < 1e-6
    )


def test_equal_values_may_choose_either_action() -> None:
    model, other = untrained(BOX, spaces.Discrete(2)), untrained(BOX, spaces.Discrete(2))
    for undecided, bias in ((model, 0.0), (other, 1e-6)):
        with torch.no_grad():
            torch.nn.init.zeros_(dict(undecided.policy.named_parameters())["action_net.weight"])
            acting(undecided)[:] = torch.tensor([0.0, bias])
    policy = exported(other)

    parity = compare(model, policy, np.zeros((256, 3), np.float32))

    assert parity.ties == 256
    assert parity.max_difference <= 1e-6


class Branching(FlattenExtractor):
    """Does what depends on the values of a tensor, which no graph can."""

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return observations if observations.sum() > 0 else -observations


class Bessel(FlattenExtractor):
    """Uses an operator that ONNX does not have."""

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(torch.special.bessel_j0(observations))


class Doubling(FlattenExtractor):
    """Somebody's own, which can be exported."""

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(observations)


def extracting(extractor: type[FlattenExtractor]) -> BaseAlgorithm:
    return PPO(
        "MlpPolicy",
        "CartPole-v1",
        policy_kwargs={"features_extractor_class": extractor},
        device="cpu",
        seed=0,
    )


@pytest.mark.parametrize(
    ("extractor", "says"),
    [
        (
            Branching,
            r"cannot be exported to ONNX: Branching, at 'return observations if observations.sum\(\) > 0 .*inference=native",
        ),
        (
            Bessel,
            "cannot be exported to ONNX: Bessel uses the operator prims.bessel_j0, which has no ONNX function; .*inference=native",
        ),
    ],
)
def test_what_cannot_be_exported_is_named_by_module_and_operator(
    extractor: type[FlattenExtractor], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MlflowException, match=says):
        model_writer.prepare_model(extracting(extractor), None)

    assert capfd.readouterr().err == ""


def test_a_features_extractor_of_ones_own_is_exported() -> None:
    assert (
        model_writer.prepare_model(extracting(Doubling), None).card["parity"]["max_difference"]
        <= 1e-5
    )


@pytest.mark.parametrize(
    "model", ["agent.zip", untrained(BOX, spaces.Discrete(2)).policy], ids=["a path", "a policy"]
)
def test_what_is_no_algorithm_is_refused(model: Any) -> None:
    with pytest.raises(
        MlflowException, match="is no agent; give an algorithm of stable_baselines3 or sb3_contrib"
    ):
        model_writer.prepare_model(model, None)


def test_an_own_vectorised_wrapper_that_changes_observations_is_refused() -> None:
    class Halved(VecEnvWrapper):
        def __init__(self, venv: VecEnv) -> None:
            super().__init__(venv, observation_space=spaces.Box(-9, 9, (2,)))

        def reset(self) -> NDArray[Any]:
            return np.asarray(self.venv.reset())[:, :2]

        def step_wait(self) -> Any:
            observations, *rest = self.venv.step_wait()
            return np.asarray(observations)[:, :2], *rest

    with pytest.raises(
        MlflowException,
        match=r"learned through Halved, which cannot be exported; use a gymnasium\.Wrapper",
    ):
        model_writer.prepare_model(
            PPO("MlpPolicy", Halved(make_vec_env("CartPole-v1")), device="cpu"), None
        )


def test_what_normalizes_twice_is_refused() -> None:
    vec_env = VecNormalize(
        VecNormalize(make_vec_env("CartPole-v1"), norm_reward=False), norm_obs=False
    )

    with pytest.raises(
        MlflowException,
        match=r"VecNormalize, VecNormalize, from the inside out, cannot be exported",
    ):
        model_writer.prepare_model(PPO("MlpPolicy", vec_env, device="cpu"), None)


@pytest.mark.parametrize(
    "farthest", [float(np.finfo(np.float32).max), float(np.finfo(np.float64).max)]
)
def test_bounds_may_be_far_away(farthest: float) -> None:
    model = untrained(
        spaces.Box(-farthest, farthest, (3,), np.float64), spaces.Discrete(2), algo=DQN
    )

    assert model_writer.prepare_model(model, None).card["parity"]["max_difference"] <= 1e-5


def test_a_model_in_the_middle_of_training_stays_in_it() -> None:
    model = PPO("MlpPolicy", "CartPole-v1", device="cpu")
    model.policy.set_training_mode(True)

    model_writer.prepare_model(model, None)

    assert model.policy.training


def test_frames_stacked_outside_of_normalization_are_refused() -> None:
    vec_env = VecFrameStack(VecNormalize(make_vec_env("CartPole-v1")), 2)

    with pytest.raises(
        MlflowException,
        match=r"VecNormalize, VecFrameStack, from the inside out, cannot be exported; wrap .* by VecFrameStack first",
    ):
        model_writer.prepare_model(PPO("MlpPolicy", vec_env, device="cpu"), None)


def test_frames_stacked_by_sb3_are_stacked_by_the_recorded_environment() -> None:
    model = PPO("MlpPolicy", VecFrameStack(make_vec_env("CartPole-v1"), 3), device="cpu", seed=0)

    description = json.dumps(model_writer.prepare_model(model, None).card["environment"])

    with env_spec.make_from_spec(description) as env:
        assert env.observation_space == model.observation_space


@pytest.mark.parametrize("description", ["{}", "no JSON"])
def test_an_environment_that_is_no_env_spec_is_refused(description: str) -> None:
    with pytest.raises(MlflowException, match="EnvSpec"):
        model_writer.prepare_model(PPO("MlpPolicy", "CartPole-v1", device="cpu"), description)


def test_an_environment_with_other_spaces_is_refused() -> None:
    pendulum = env_spec.spec_to_json(gymnasium.spec("Pendulum-v1"))

    with pytest.raises(MlflowException, match="environment"):
        model_writer.prepare_model(PPO("MlpPolicy", "CartPole-v1", device="cpu"), pendulum)


def test_a_model_of_a_script_and_one_of_a_step_name_the_same_environment(cartpole: str) -> None:
    described = source_env.find_source_env(
        PPO("MlpPolicy", "CartPole-v1", device="cpu")
    ).description

    assert described is not None
    assert json.loads(described) == json.loads(cartpole)
