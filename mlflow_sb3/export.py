"""An SB3 policy as an ONNX graph, compared with SB3 before anybody keeps it."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.distributions import CategoricalDistribution, DiagGaussianDistribution
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.dqn.policies import DQNPolicy
from stable_baselines3.sac.policies import SACPolicy

from mlflow_sb3 import algorithm, environment
from mlflow_sb3.policy import OnnxPolicy, Space

SAMPLED = 256
VISITED = 256
BATCHES = (1, 7, 64)
TOLERANCE = 1e-5
"""Largest difference allowed, as a part of the range of the action, or of the largest value that decides between actions."""


@dataclass(frozen=True)
class Parity:
    """How far the graph is from SB3: over how many observations, and by how much at the most."""

    observations: int
    observations_from_episodes: int
    max_difference: float
    """Of continuous actions, as a part of their range; of the values behind discrete actions, as a part of the largest."""
    ties: int
    """Discrete actions that differ because SB3's own values for the two are equal within ``TOLERANCE``."""


@dataclass(frozen=True)
class Exported:
    """A policy that acts as SB3 does, its graph as ONNX bytes, and an observation to try it with."""

    policy: OnnxPolicy
    graph: bytes
    parity: Parity
    example: NDArray[Any]
    """Shape ``(1, *observation_shape)``."""


def export(model: BaseAlgorithm, description: str | None) -> Exported:
    """Export the policy of an algorithm and compare it with ``model.predict``.

    Args:
        model: Is not changed.
        description: ``EnvSpec`` JSON of the environment to collect observations in; without it they are only sampled.

    Raises:
        MlflowException: The model is not supported yet, or the graph does not agree with SB3.
    """
    check_supported(model)
    with torch.random.fork_rng(devices=[]):  # making a copy of the policy draws its first weights
        graph = _graph(model)
        policy = OnnxPolicy(graph, space(model.observation_space), space(model.action_space))
        observations = np.concatenate([_visited(model, description), _sampled(model.observation_space)])
        parity = compare(model, policy, observations, len(observations) - SAMPLED)
    return Exported(policy, graph, parity, observations[:1])


def described(model: BaseAlgorithm) -> str | None:
    """``EnvSpec`` JSON of the environment that a model was trained in; None when it cannot be made again from one."""
    vec_env = model.get_env()
    if vec_env is None:
        return None
    if vec_env.get_attr("observation_space", [0])[0] != model.observation_space:
        raise MlflowException.invalid_parameter_value(
            "the agent saw observations that its environment does not give, as with VecFrameStack, which is not supported yet."
        )
    try:
        return environment.describe(vec_env.get_attr("spec", [0])[0])
    except MlflowException:
        return None


def check_supported(model: BaseAlgorithm) -> None:
    """Refuse, in one sentence, what this version cannot export."""
    name = type(model).__name__
    algo = name.lower()
    if algo not in algorithm.ACTIONS or type(model) is not algorithm.find(algo):
        raise MlflowException.invalid_parameter_value(
            f"{type(model).__module__}.{name} is not supported yet; this version takes {', '.join(algorithm.ACTIONS)} of stable_baselines3."
        )
    algorithm.check_spaces(algo, model.observation_space, model.action_space)
    if model.get_vec_normalize_env() is not None:
        raise MlflowException.invalid_parameter_value("agents trained with VecNormalize are not supported yet; train without it.")
    extractor = model.policy.features_extractor_class
    if extractor is not FlattenExtractor:
        raise MlflowException.invalid_parameter_value(
            f"the features extractor {extractor.__name__} is not supported yet; this version takes MlpPolicy."
        )


def space(described: spaces.Space[Any]) -> Space:
    """Shape, dtype and words of a Gymnasium space."""
    return Space(tuple(described.shape or ()), str(described.dtype), str(described))


def compare(model: BaseAlgorithm, policy: OnnxPolicy, observations: NDArray[Any], in_episodes: int) -> Parity:
    """Compare the graph's actions with those of ``model.predict``, in batches of several sizes.

    Args:
        model: SB3's.
        policy: The same, exported.
        observations: Shape ``(n, *observation_shape)``.
        in_episodes: How many of them are from episodes.

    Raises:
        MlflowException: They differ by more than ``TOLERANCE``.
    """
    expected, _ = model.predict(observations, deterministic=True)
    batches = np.split(observations, np.cumsum(BATCHES))
    actual = np.concatenate([policy.predict(batch)[0] for batch in batches])
    if isinstance(model.action_space, spaces.Box):
        extent = model.action_space.high - model.action_space.low
        differences, wrong, ties = np.abs(actual - expected) / np.where(extent > 0, extent, 1), 0, 0
    else:
        differences, wrong, ties = _discrete(model, policy, observations, expected, actual)
    parity = Parity(len(observations), in_episodes, float(differences.max()), ties)
    if wrong or not parity.max_difference <= TOLERANCE:
        raise MlflowException.invalid_parameter_value(
            f"the exported graph differs from stable_baselines3 by {parity.max_difference:.1e} (allowed: {TOLERANCE:.0e}) "
            f"and takes {wrong} wrong actions of {len(observations)}; nothing was saved. Please report the policy_kwargs."
        )
    return parity


def _discrete(
    model: BaseAlgorithm,
    policy: OnnxPolicy,
    observations: NDArray[Any],
    expected: NDArray[Any],
    actual: NDArray[Any],
) -> tuple[NDArray[Any], int, int]:
    """Differences of the values that decide, wrong actions, and other actions where SB3's own values tie."""
    exported = _Exported(model)
    with torch.no_grad():
        values = exported(torch.as_tensor(observations, dtype=torch.float32))[1].numpy()
    scale = max(1.0, float(np.abs(values).max()))  # of all: where large terms cancel out, a small value has their rounding
    differences = np.abs(policy.outputs(observations)[exported.names[1]] - values).max(axis=1) / scale
    rows = np.arange(len(values))
    gaps = np.abs(values[rows, expected] - values[rows, actual]) / scale
    other = actual != expected
    return differences, int((other & (gaps > TOLERANCE)).sum()), int((other & (gaps <= TOLERANCE)).sum())


def _sampled(observation_space: spaces.Space[Any]) -> NDArray[Any]:
    private = copy.deepcopy(observation_space)
    private.seed(0)
    return np.stack([private.sample() for _ in range(SAMPLED)])


def _visited(model: BaseAlgorithm, description: str | None) -> NDArray[Any]:
    """Observations of shape ``(VISITED, *observation_shape)`` of episodes that the agent plays; none without environment."""
    seen = np.empty((0, *(model.observation_space.shape or ())), model.observation_space.dtype)
    if description is None:
        return seen
    observations: list[NDArray[Any]] = []
    with environment.remake(description) as env:
        if (env.observation_space, env.action_space) != (model.observation_space, model.action_space):
            raise MlflowException.invalid_parameter_value("environment has other spaces than the agent; give the one it was trained in.")
        observation, _ = env.reset(seed=0)
        while len(observations) < VISITED:
            observations.append(np.array(observation))
            action, _ = model.predict(observation, deterministic=True)
            observation, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                observation, _ = env.reset()
    return np.stack(observations)


def _graph(model: BaseAlgorithm) -> bytes:
    exported = _Exported(model).eval()
    example = torch.zeros(2, *(model.observation_space.shape or ()))
    buffer = io.BytesIO()
    with _quiet(), _unvalidated_distributions():
        try:
            program = torch.onnx.export(
                exported,
                (example,),
                dynamo=True,
                verbose=False,
                input_names=["observation"],
                output_names=exported.names,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
        except torch.onnx.OnnxExporterError as error:
            reason = " ".join(str(error.__cause__ or error).split())
            raise MlflowException.invalid_parameter_value(
                f"the policy cannot be exported to ONNX: {reason[:300]}; take other policy_kwargs."
            ) from error
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program, though dynamo=True promises one.")
    program.save(buffer, external_data=False)  # type: ignore[arg-type]  # takes files too
    return buffer.getvalue()


class _Exported(torch.nn.Module):
    """What the graph computes: the deterministic action as the environment takes it, and the distribution's parameters."""

    def __init__(self, model: BaseAlgorithm) -> None:
        super().__init__()
        self.policy = _copied(model.policy)
        self.policy.set_training_mode(False)
        self.bounded = isinstance(model.action_space, spaces.Box)
        if isinstance(model.action_space, spaces.Box):
            self.low, self.high = torch.as_tensor(model.action_space.low), torch.as_tensor(model.action_space.high)
        example = torch.zeros(1, *(model.observation_space.shape or ()))
        self.names = ["action", *_parameters(self.policy, example)]

    def forward(self, observation: torch.Tensor) -> tuple[torch.Tensor, ...]:
        action = self.policy._predict(observation, deterministic=True)
        if self.bounded:
            action = action.reshape(-1, *self.low.shape)
        if self.bounded and self.policy.squash_output:
            action = self.low + (0.5 * (action + 1.0) * (self.high - self.low))
        elif self.bounded:
            action = torch.clamp(action, self.low, self.high)
        return (action, *_parameters(self.policy, observation).values())


def _copied(policy: BasePolicy) -> BasePolicy:
    """The policy again, on the CPU. ``copy.deepcopy`` fails on a policy that has acted: it keeps its last distribution."""
    buffer = io.BytesIO()
    policy.save(buffer)  # type: ignore[arg-type]  # takes files too
    buffer.seek(0)
    return type(policy).load(buffer, device="cpu")  # type: ignore[arg-type]  # takes files too


def _parameters(policy: BasePolicy, observation: torch.Tensor) -> dict[str, torch.Tensor]:
    """Parameters of the action distribution before squashing and clipping; none for deterministic policies and gSDE."""
    if isinstance(policy, DQNPolicy):
        return {"q_values": policy.q_net(observation)}
    if isinstance(policy, ActorCriticPolicy):
        distribution = policy.get_distribution(observation)
        if isinstance(distribution, CategoricalDistribution):
            return {"logits": distribution.distribution.logits}
        if isinstance(distribution, DiagGaussianDistribution):
            return {"mean": distribution.distribution.mean, "log_std": distribution.distribution.stddev.log()}
    if isinstance(policy, SACPolicy) and not policy.actor.use_sde:
        mean, log_std, _ = policy.actor.get_action_dist_params(observation)
        return {"mean": mean, "log_std": log_std}
    return {}


@contextmanager
def _unvalidated_distributions() -> Iterator[None]:
    """The checks of ``torch.distributions`` depend on values, which an exported graph cannot."""
    before = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporting, torch 2.13 warns of its own deprecations and of a torchvision that nothing here needs."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(before)
