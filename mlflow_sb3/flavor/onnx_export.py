"""An SB3 policy as a graph that is compared with SB3 before anybody keeps it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Dict
from gymnasium.spaces import Space as GymSpace
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy

from mlflow_sb3.envs import env_spec, rollout, spaces
from mlflow_sb3.flavor import onnx_module
from mlflow_sb3.flavor.onnx_module import PolicyModule as Reference
from mlflow_sb3.flavor.sb3_policy import SB3Policy
from mlflow_sb3.flavor.source_env import SourceEnv
from mlflow_sb3.inference import batching
from mlflow_sb3.inference.batching import Observations
from mlflow_sb3.inference.onnx_policy import NEXT_PREFIX, OnnxPolicy
from mlflow_sb3.inference.policy_inputs import STATE_NAMES, LstmState

N_SAMPLED = 256
N_VISITED = 256
BATCH_SIZES = (1, 7, 64)
MAX_BOUND = 1e6
"""Observations are sampled between bounds no farther than this."""
TOLERANCE = 1e-5
"""Largest difference allowed, as a part of the range of the action, or of the largest value that decides between actions."""
_FORBIDDEN = -1e7
"""Logits below it are those of masked actions, which sb3-contrib sets to -1e8."""


@dataclass(frozen=True)
class Parity:
    """How far the graph is from SB3: over how many observations, and by how much at the most."""

    observations: int
    observations_from_episodes: int
    max_difference: float
    """Of continuous actions, as a part of their range; of the values behind discrete actions, as a part of the largest; of states."""
    ties: int
    """Discrete actions that differ because SB3's own values for the two are equal within ``TOLERANCE``."""


@dataclass(frozen=True)
class ExportedPolicy:
    """A policy that acts as SB3 does, its graph as ONNX bytes, and an observation to try it with."""

    policy: OnnxPolicy
    graph: bytes
    parity: Parity
    example: Observations
    """One observation, with the batch dimension."""


@dataclass(frozen=True)
class ParityInputs:
    """What graph and SB3 are both asked: observations, with a state and masks where the policy has them."""

    observations: Observations
    from_episodes: int
    state: LstmState | None = None
    episode_start: NDArray[np.bool_] | None = None
    masks: NDArray[np.bool_] | None = None

    def parts(self, sizes: tuple[int, ...]) -> list[ParityInputs]:
        """Batches of these sizes, and one of what is left."""
        edges = [0, *np.cumsum(sizes).tolist(), batching.batch_size(self.observations)]
        return [self._rows(slice(*edge)) for edge in pairwise(edges)]

    def _rows(self, rows: slice) -> ParityInputs:
        return ParityInputs(
            batching.take_rows(self.observations, rows),
            self.from_episodes,
            None if self.state is None else tuple(part[:, rows] for part in self.state),
            None if self.episode_start is None else self.episode_start[rows],
            None if self.masks is None else self.masks[rows],
        )


def export_policy(model: BaseAlgorithm, source: SourceEnv) -> ExportedPolicy:
    """Export the policy of an algorithm and compare it with SB3.

    Args:
        model: Is not changed.
        source: Its environment, to collect observations in; where none is known, they are only sampled.

    Raises:
        MlflowException: PyTorch cannot export the policy, or the graph does not agree with SB3.
    """
    with (
        torch.random.fork_rng(devices=[]),
        _training_mode_kept(model.policy),
    ):  # a copy draws its first weights
        onnx, distribution = onnx_module.build_graph(
            model, source.observation_space, source.action_space
        )
        policy = OnnxPolicy(
            onnx,
            spaces.describe_space(source.observation_space),
            spaces.describe_space(source.action_space),
            distribution,
        )
        trials = _trials(model, policy, source)
        parity = check_parity(model, policy, source, trials)
    return ExportedPolicy(policy, onnx, parity, batching.take_rows(trials.observations, slice(1)))


@contextmanager
def _training_mode_kept(policy: BasePolicy) -> Iterator[None]:
    """SB3's ``predict`` switches to evaluation mode for good."""
    before = policy.training
    try:
        yield
    finally:
        policy.set_training_mode(before)


def check_parity(
    model: BaseAlgorithm, policy: OnnxPolicy, source: SourceEnv, trials: ParityInputs
) -> Parity:
    """Compare the graph's actions with SB3's, in batches of several sizes.

    Args:
        model: SB3's.
        policy: The same, exported.
        source: The spaces of the environment.
        trials: What both are asked.

    Raises:
        MlflowException: They differ by more than ``TOLERANCE``.
    """
    native = SB3Policy.of(model, source.observation_space, source.action_space)
    expected, state = native.predict(
        trials.observations, trials.state, trials.episode_start, action_masks=trials.masks
    )
    answers = [
        policy.predict(part.observations, part.state, part.episode_start, action_masks=part.masks)
        for part in trials.parts(BATCH_SIZES)
    ]
    actual = np.concatenate([action for action, _ in answers])
    if isinstance(source.action_space, Box):
        extent = source.action_space.high - source.action_space.low
        differences, wrong, ties = (
            np.abs(actual - expected) / np.where(np.isfinite(extent) & (extent > 0), extent, 1),
            0,
            0,
        )
    else:
        differences, wrong, ties = _discrete(
            _values(model, source, trials), _values_of(policy, trials), source, expected, actual
        )
    largest = max(
        float(differences.max()), _of_states(state, answers) if policy.inputs.state_shape else 0.0
    )
    parity = Parity(len(expected), trials.from_episodes, largest, ties)
    if wrong or not parity.max_difference <= TOLERANCE:
        raise MlflowException.invalid_parameter_value(
            f"the exported graph differs from stable_baselines3 by {parity.max_difference:.1e} (allowed: {TOLERANCE:.0e}) "
            f"and takes {wrong} wrong actions of {len(expected)}; nothing was saved. Please report the policy_kwargs."
        )
    return parity


def _of_states(
    expected: LstmState | None, answers: list[tuple[NDArray[Any], LstmState | None]]
) -> float:
    """The largest difference of the next state; its values lie between -1 and 1, or around them."""
    actual = [
        np.concatenate([state[index] for _, state in answers if state], axis=1)
        for index in range(len(STATE_NAMES))
    ]
    return max(
        float(np.abs(mine - theirs).max())
        for mine, theirs in zip(actual, expected or (), strict=True)
    )


def _discrete(
    values: NDArray[Any],
    found: NDArray[Any],
    source: SourceEnv,
    expected: NDArray[Any],
    actual: NDArray[Any],
) -> tuple[NDArray[Any], int, int]:
    """Differences of the values that decide, wrong actions, and other actions where SB3's own values tie."""
    scale = max(
        1.0, float(np.abs(values).max())
    )  # of all: where large terms cancel out, a small value has their rounding
    differences = np.abs(found - values).max(axis=1) / scale
    gaps = _gaps(values, source.action_space, expected, actual) / scale
    other = (actual != expected).reshape(len(expected), -1)
    return (
        differences,
        int((other & (gaps > TOLERANCE)).any(axis=1).sum()),
        int((other & (gaps <= TOLERANCE)).any(axis=1).sum()),
    )


def _gaps(
    values: NDArray[Any], action_space: GymSpace[Any], expected: NDArray[Any], actual: NDArray[Any]
) -> NDArray[Any]:
    """How much more SB3 thinks of its own choices than of the graph's, shape ``(n, choices)``."""
    rows = np.arange(len(values))[:, np.newaxis]
    chosen = [action.reshape(len(values), -1).astype(np.int64) for action in (expected, actual)]
    nvec = spaces.action_sizes(action_space)
    if values.shape[1] == len(nvec):  # one logit for each bit, which decides by its sign
        return np.asarray(np.abs(values))
    first = np.ravel(getattr(action_space, "start", 0))
    offsets = np.cumsum([0, *nvec[:-1]]) - first
    mine, theirs = (values[rows, action + offsets] for action in chosen)
    return np.asarray(np.abs(mine - theirs))


def _values(model: BaseAlgorithm, source: SourceEnv, trials: ParityInputs) -> NDArray[Any]:
    """What decides between the actions, as PyTorch computes it."""
    reference = Reference(model, source.observation_space, source.action_space).eval()
    arrays = (
        trials.observations if isinstance(trials.observations, dict) else {"": trials.observations}
    )
    example = reference.example()
    tensors = [
        torch.as_tensor(np.asarray(arrays[key]), dtype=example[name].dtype)
        for name, key in reference.keys.items()
    ]
    tensors += [torch.as_tensor(part) for part in _forgotten(trials)]
    tensors += [] if trials.masks is None else [torch.as_tensor(trials.masks)]
    with torch.no_grad():
        outputs = {name: tensor.numpy() for name, tensor in reference.named(*tensors).items()}
    return _deciding(outputs)


def _values_of(policy: OnnxPolicy, trials: ParityInputs) -> NDArray[Any]:
    return _deciding(
        policy.outputs(
            trials.observations, tuple(_forgotten(trials)) or None, action_masks=trials.masks
        )
    )


def _forgotten(trials: ParityInputs) -> list[NDArray[np.float32]]:
    """The state with zeros where an episode begins."""
    starts = trials.episode_start if trials.episode_start is not None else np.zeros(0, bool)
    return [
        np.where(starts[:, np.newaxis], 0, part).astype(np.float32) for part in trials.state or ()
    ]


def _deciding(outputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The one parameter that decides; forbidden actions count as 0, and those of policies that name none as nothing."""
    names = [name for name in outputs if name != "action" and not name.startswith(NEXT_PREFIX)]
    values = outputs[names[0]] if names else np.zeros((len(outputs["action"]), 1))
    decided: NDArray[Any] = np.where(values < _FORBIDDEN, 0, values)
    return decided


def _trials(model: BaseAlgorithm, policy: OnnxPolicy, source: SourceEnv) -> ParityInputs:
    """Observations of episodes and of the whole space; random states and masks beside them."""
    visited = _visited(model, source)
    anywhere = sample_observations(source.observation_space, N_SAMPLED)
    everything = anywhere if visited is None else batching.concatenate([visited, anywhere])
    count = batching.batch_size(everything)
    rng = np.random.default_rng(0)
    state = starts = masks = None
    if policy.inputs.state_shape is not None:
        layers, units = policy.inputs.state_shape
        state = tuple(
            rng.uniform(-1, 1, (layers, count, units)).astype(np.float32) for _ in STATE_NAMES
        )
        starts = rng.random(count) < 0.25  # noqa: PLR2004 a quarter of the episodes begin
    if policy.inputs.choices is not None:
        masks = _masks(rng, count, policy.inputs.choices)
    return ParityInputs(everything, count - N_SAMPLED, state, starts, masks)


def _masks(rng: np.random.Generator, count: int, nvec: tuple[int, ...]) -> NDArray[np.bool_]:
    """Random masks that allow at least one value of every choice."""
    parts = []
    for n in nvec:
        mask = rng.random((count, n)) < 0.5  # noqa: PLR2004 half of the values
        mask[np.arange(count), rng.integers(n, size=count)] = True
        parts.append(mask)
    return np.concatenate(parts, axis=1)


def sample_observations(observation_space: GymSpace[Any], count: int) -> Observations:
    """Observations of the whole space, always the same; the space's own generator is left alone."""
    private = _near(observation_space)
    private.seed(0)
    return batching.stack_observations([private.sample() for _ in range(count)])


def _near(space: GymSpace[Any]) -> GymSpace[Any]:
    """The space again, with bounds of floats that numbers can be compared within."""
    if isinstance(space, Dict):
        return Dict({key: _near(inner) for key, inner in space.spaces.items()})
    if isinstance(space, Box) and space.dtype.kind == "f":
        low, high = (
            np.where(np.isfinite(bound), np.clip(bound, -MAX_BOUND, MAX_BOUND), bound)
            for bound in (space.low, space.high)
        )
        return Box(low.astype(space.dtype), high.astype(space.dtype), dtype=space.dtype)
    return copy.deepcopy(space)


def _visited(model: BaseAlgorithm, source: SourceEnv) -> Observations | None:
    """``VISITED`` observations of episodes that the agent plays; None without environment."""
    if source.description is None:
        return None
    native = SB3Policy.of(model, source.observation_space, source.action_space)
    seen: list[Any] = []
    with env_spec.make_from_spec(source.description) as env:
        observation, _ = env.reset(seed=0)
        state, first = None, np.ones(1, bool)
        while len(seen) < N_VISITED:
            seen.append(copy.deepcopy(observation))
            masks = rollout.get_action_masks(native, [env])
            actions, state = native.predict(
                batching.stack_observations([observation]), state, first, action_masks=masks
            )
            observation, _, terminated, truncated, _ = env.step(actions[0])
            first = np.array([terminated or truncated])
            if first[0]:
                observation, _ = env.reset()
    return batching.stack_observations(seen)
