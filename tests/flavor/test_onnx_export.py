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
from mlflow_sb3.flavor import model_writer, onnx_export, parity_inputs, source_env
from mlflow_sb3.flavor.parity import check_parity
from mlflow_sb3.inference import agent_files
from mlflow_sb3.inference.onnx_policy import OnnxPolicy
from tests.environments import Spaces

BOX = spaces.Box(-1, 1, (3,))


def build_untrained(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    algo: type[BaseAlgorithm] = PPO,
    policy: str = "MlpPolicy",
) -> BaseAlgorithm:
    return algo(policy, Spaces(observation_space, action_space), device="cpu", seed=0)  # type: ignore[call-arg]


def export(model: BaseAlgorithm) -> OnnxPolicy:
    return onnx_export.export_policy(model, source_env.find_source_env(model)).policy


def export_with_parity(model: BaseAlgorithm) -> agent_files.Parity:
    return onnx_export.export_policy(model, source_env.find_source_env(model)).parity


def check(
    model: BaseAlgorithm, policy: OnnxPolicy, observations: NDArray[Any]
) -> agent_files.Parity:
    return check_parity(
        model,
        policy,
        source_env.find_source_env(model),
        parity_inputs.ParityInputs(observations, 0),
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
    """An agent with spaces that no environment of classic control has."""
    algo, observation_space, action_space, parameters = request.param
    model = build_untrained(observation_space, action_space, algo=algo)
    observation_space.seed(1)
    observations = np.stack([observation_space.sample() for _ in range(256)])
    return Case(model, export(model), parameters, observations)


def test_actions_equal_those_of_sb3_and_lie_in_the_action_space(case: Case) -> None:
    expected, _ = case.model.predict(case.observations, deterministic=True)

    actions, _ = case.policy.predict(case.observations)

    assert actions.dtype == case.model.action_space.dtype
    assert actions.shape == expected.shape
    assert actions == pytest.approx(expected, abs=1e-4)
    assert all(case.model.action_space.contains(action) for action in actions)


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


def test_one_changed_weight_is_detected(case: Case) -> None:
    weight = find_action_bias(case.model)
    with torch.no_grad():
        weight[0] += 0.01

    with pytest.raises(
        MlflowException,
        match=r"differs from stable_baselines3 by .*\(allowed: 1e-05\).*Nothing was saved",
    ):
        check(case.model, case.policy, case.observations)

    with torch.no_grad():
        weight[0] -= 0.01


def find_action_bias(model: BaseAlgorithm) -> torch.nn.Parameter:
    """Return the bias of the last layer of the actor."""
    names = ("action_net.bias", "actor.mu.bias", "actor.mu.4.bias", "q_net.q_net.4.bias")
    return next(weight for name, weight in model.policy.named_parameters() if name in names)


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

    assert export_with_parity(model).max_difference < 1e-6


def test_equal_values_allow_either_action() -> None:
    model, other = (
        build_untrained(BOX, spaces.Discrete(2)),
        build_untrained(BOX, spaces.Discrete(2)),
    )
    for undecided, bias in ((model, 0.0), (other, 1e-6)):
        with torch.no_grad():
            torch.nn.init.zeros_(dict(undecided.policy.named_parameters())["action_net.weight"])
            find_action_bias(undecided)[:] = torch.tensor([0.0, bias])
    policy = export(other)

    parity = check(model, policy, np.zeros((256, 3), np.float32))

    assert parity.ties == 256
    assert parity.max_difference <= 1e-6


class Branching(FlattenExtractor):
    """Branches on the values of a tensor, which cannot be exported."""

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return observations if observations.sum() > 0 else -observations


class Bessel(FlattenExtractor):
    """Uses an operator that has no ONNX function."""

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(torch.special.bessel_j0(observations))


class Doubling(FlattenExtractor):
    """A custom extractor that can be exported."""

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(observations)


def build_with_extractor(extractor: type[FlattenExtractor]) -> BaseAlgorithm:
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
            r"ONNX: Branching, at 'return observations if observations.sum\(\) > .*=native",
        ),
        (
            Bessel,
            r"ONNX: Bessel uses the operator prims.bessel_j0, which has no ONNX .*=native",
        ),
    ],
)
def test_a_failed_export_names_the_module_and_the_operator(
    extractor: type[FlattenExtractor], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MlflowException, match=says):
        model_writer.prepare_model(build_with_extractor(extractor), None)

    assert capfd.readouterr().err == ""


def test_a_custom_features_extractor_is_exported() -> None:
    assert export_with_parity(build_with_extractor(Doubling)).max_difference <= 1e-5


@pytest.mark.parametrize(
    "model",
    ["agent.zip", build_untrained(BOX, spaces.Discrete(2)).policy],
    ids=["a path", "a policy"],
)
def test_only_algorithms_are_accepted(model: Any) -> None:
    with pytest.raises(
        MlflowException, match="Pass an algorithm of stable_baselines3 or sb3_contrib"
    ):
        model_writer.prepare_model(model, None)


def test_a_custom_vec_env_wrapper_is_refused() -> None:
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
        match=r"VecEnv wrapper Halved, which cannot be exported\. Use a gymnasium\.Wrapper",
    ):
        model_writer.prepare_model(
            PPO("MlpPolicy", Halved(make_vec_env("CartPole-v1")), device="cpu"), None
        )


def test_normalizing_twice_is_refused() -> None:
    vec_env = VecNormalize(
        VecNormalize(make_vec_env("CartPole-v1"), norm_reward=False), norm_obs=False
    )

    with pytest.raises(
        MlflowException,
        match=r"VecNormalize, VecNormalize \(from the inside\), which cannot be exported",
    ):
        model_writer.prepare_model(PPO("MlpPolicy", vec_env, device="cpu"), None)


@pytest.mark.parametrize(
    "bound", [float(np.finfo(np.float32).max), float(np.finfo(np.float64).max)]
)
def test_the_space_can_have_very_large_bounds(bound: float) -> None:
    model = build_untrained(
        spaces.Box(-bound, bound, (3,), np.float64), spaces.Discrete(2), algo=DQN
    )

    assert export_with_parity(model).max_difference <= 1e-5


def test_the_training_mode_is_restored() -> None:
    model = PPO("MlpPolicy", "CartPole-v1", device="cpu")
    model.policy.set_training_mode(True)

    model_writer.prepare_model(model, None)

    assert model.policy.training


def test_frame_stacking_after_normalization_is_refused() -> None:
    vec_env = VecFrameStack(VecNormalize(make_vec_env("CartPole-v1")), 2)

    with pytest.raises(
        MlflowException,
        match=r"VecNormalize, VecFrameStack \(from the inside\).* Apply VecFrameStack first",
    ):
        model_writer.prepare_model(PPO("MlpPolicy", vec_env, device="cpu"), None)


def test_the_recorded_environment_stacks_frames_like_sb3() -> None:
    model = PPO("MlpPolicy", VecFrameStack(make_vec_env("CartPole-v1"), 3), device="cpu", seed=0)

    description = json.dumps(model_writer.prepare_model(model, None).agent_info.environment)

    with env_spec.make_from_spec(description) as env:
        assert env.observation_space == model.observation_space


@pytest.mark.parametrize("description", ["{}", "no JSON"])
def test_an_invalid_env_spec_is_refused(description: str) -> None:
    with pytest.raises(MlflowException, match="EnvSpec"):
        model_writer.prepare_model(PPO("MlpPolicy", "CartPole-v1", device="cpu"), description)


def test_an_environment_with_other_spaces_is_refused() -> None:
    pendulum = env_spec.spec_to_json(gymnasium.spec("Pendulum-v1"))

    with pytest.raises(MlflowException, match="environment"):
        model_writer.prepare_model(PPO("MlpPolicy", "CartPole-v1", device="cpu"), pendulum)


def test_a_script_records_the_same_environment_as_a_step(cartpole: str) -> None:
    described = source_env.find_source_env(
        PPO("MlpPolicy", "CartPole-v1", device="cpu")
    ).description

    assert described is not None
    assert json.loads(described) == json.loads(cartpole)
