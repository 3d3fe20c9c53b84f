"""Compare an exported graph with SB3."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.spaces import Space as GymSpace
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm

from mlflow_sb3.envs import spaces
from mlflow_sb3.flavor.onnx_module import PolicyModule
from mlflow_sb3.flavor.parity_inputs import ParityInputs
from mlflow_sb3.flavor.sb3_policy import SB3Policy
from mlflow_sb3.flavor.source_env import SourceEnv
from mlflow_sb3.inference.agent_files import Parity
from mlflow_sb3.inference.onnx_policy import NEXT_PREFIX, OnnxPolicy
from mlflow_sb3.inference.policy_inputs import STATE_NAMES, LstmState

BATCH_SIZES = (1, 7, 64)
"""Batch sizes of the comparison. One more batch has the remaining observations."""
TOLERANCE = 1e-5
"""Largest allowed ``Parity.max_difference``.

Two actions count as equally good if SB3's values for them differ by at most this. If the largest
absolute value exceeds 1, the difference is relative to it.
"""
_MAX_FORBIDDEN_LOGIT = -1e7
"""Logits below this value belong to forbidden actions. sb3-contrib sets them to -1e8."""


def check_parity(
    model: BaseAlgorithm, policy: OnnxPolicy, source: SourceEnv, inputs: ParityInputs
) -> Parity:
    """Compare a graph with SB3, in batches of several sizes.

    The comparison covers the actions, the values that decide between discrete actions, and the LSTM
    states. See ``Parity.max_difference``.

    Args:
        model: SB3 algorithm.
        policy: Exported policy.
        source: Training environment.
        inputs: Observations, states and masks passed to both policies.

    Raises:
        MlflowException: A difference exceeds ``TOLERANCE``, or an action differs although SB3 does
            not rate both actions equally.
    """
    native = SB3Policy.from_algorithm(model, source.observation_space, source.action_space)
    expected, expected_state = native.predict(
        inputs.observations, inputs.state, inputs.episode_start, action_masks=inputs.masks
    )
    predictions = [
        policy.predict(part.observations, part.state, part.episode_start, action_masks=part.masks)
        for part in inputs.split(BATCH_SIZES)
    ]
    actual = np.concatenate([actions for actions, _ in predictions])
    wrong = ties = 0
    if isinstance(source.action_space, Box):
        difference = _compare_continuous(source.action_space, expected, actual)
    else:
        values = _compute_sb3_values(model, source, inputs)
        # A network can compute a small value by subtracting large numbers. Such a value has a large
        # relative error. Differences are therefore divided by the largest absolute value, if it
        # exceeds 1.
        scale = float(np.abs(values).max(initial=1.0))
        graph_values = _compute_graph_values(policy, inputs)
        difference = float(np.abs(graph_values - values).max(initial=0.0)) / scale
        gaps = _compute_gaps(values, source.action_space, expected, actual) / scale
        wrong, ties = _count_differences(gaps, expected, actual)
    if policy.inputs.state_shape is not None:
        states = [state for _, state in predictions]
        difference = max(difference, _compare_states(expected_state, states))
    return _check_difference(
        Parity(len(expected), inputs.from_episodes, difference, ties), wrong=wrong
    )


def _check_difference(parity: Parity, *, wrong: int) -> Parity:
    # "not <=" is also true for NaN.
    if wrong or not parity.max_difference <= TOLERANCE:
        raise MlflowException.invalid_parameter_value(
            "The exported graph differs from stable_baselines3 "
            f"by {parity.max_difference:.1e} (allowed: {TOLERANCE:.0e}), and {wrong} of "
            f"{parity.observations} actions are wrong. Nothing was saved. Report the "
            "policy_kwargs as a bug, or log the model with inference=native."
        )
    return parity


def _compare_continuous(action_space: Box, expected: NDArray[Any], actual: NDArray[Any]) -> float:
    """Return the largest difference of actions, relative to the range of the action space.

    If the range of a dimension is infinite or zero, its difference is absolute.
    """
    extent = action_space.high - action_space.low
    scale = np.where(np.isfinite(extent) & (extent > 0), extent, 1)
    return float((np.abs(actual - expected) / scale).max())


def _compare_states(expected: LstmState | None, states: list[LstmState | None]) -> float:
    """Return the largest absolute difference of the next LSTM state."""
    actual = [
        np.concatenate([state[index] for state in states if state], axis=1)
        for index in range(len(STATE_NAMES))
    ]
    pairs = zip(actual, expected or (), strict=True)
    return max(float(np.abs(part - expected_part).max()) for part, expected_part in pairs)


def _count_differences(
    gaps: NDArray[Any], expected: NDArray[Any], actual: NDArray[Any]
) -> tuple[int, int]:
    """Return the number of wrong actions, and the number of ties.

    A tie is an action that differs although SB3 rates both actions equally.
    """
    is_other = (actual != expected).reshape(len(expected), -1)
    is_tie = gaps <= TOLERANCE
    wrong, ties = is_other & ~is_tie, is_other & is_tie
    return int(wrong.any(axis=1).sum()), int(ties.any(axis=1).sum())


def _compute_gaps(
    values: NDArray[Any], action_space: GymSpace[Any], expected: NDArray[Any], actual: NDArray[Any]
) -> NDArray[Any]:
    """Return by how much SB3 prefers its own actions over those of the graph.

    This is the difference of the values of both actions. For MultiBinary spaces without action
    masks, it is the absolute logit of each bit. Without values, it is infinite.

    Returns:
        Array of shape ``(n, integers of an action)``, or ``(n, 1)`` without values.
    """
    if values.shape[1] == 0:
        return np.full((len(values), 1), np.inf)
    sizes = spaces.get_action_sizes(action_space)
    if values.shape[1] == len(sizes):  # MultiBinary: the sign of a logit decides its bit
        return np.asarray(np.abs(values))
    rows = np.arange(len(values))[:, np.newaxis]
    offsets = np.cumsum([0, *sizes[:-1]]) - np.ravel(getattr(action_space, "start", 0))
    rated, rated_actual = (
        values[rows, actions.reshape(len(values), -1).astype(np.int64) + offsets]
        for actions in (expected, actual)
    )
    return np.asarray(np.abs(rated - rated_actual))


def _compute_sb3_values(
    model: BaseAlgorithm, source: SourceEnv, inputs: ParityInputs
) -> NDArray[Any]:
    """Return the values that decide between discrete actions, computed by PyTorch."""
    module = PolicyModule(model, source.observation_space, source.action_space).eval()
    observations = inputs.observations
    arrays = observations if isinstance(observations, dict) else {"": observations}
    example = module.make_example()
    tensors = [
        torch.as_tensor(np.asarray(arrays[key]), dtype=example[name].dtype)
        for name, key in module.keys.items()
    ]
    tensors += [torch.as_tensor(part) for part in _reset_state(inputs)]
    tensors += [] if inputs.masks is None else [torch.as_tensor(inputs.masks)]
    with torch.no_grad():
        outputs = module.compute_outputs(*tensors)
    return _select_values({name: tensor.numpy() for name, tensor in outputs.items()})


def _compute_graph_values(policy: OnnxPolicy, inputs: ParityInputs) -> NDArray[Any]:
    """Return the values that decide between discrete actions, computed by the graph."""
    state = tuple(_reset_state(inputs)) or None
    outputs = policy.compute_outputs(inputs.observations, state, action_masks=inputs.masks)
    return _select_values(outputs)


def _reset_state(inputs: ParityInputs) -> list[NDArray[np.float32]]:
    """Return the LSTM state with zeros where an episode starts."""
    if inputs.state is None or inputs.episode_start is None:
        return []
    starts = inputs.episode_start[:, np.newaxis]
    return [np.where(starts, 0, part).astype(np.float32) for part in inputs.state]


def _select_values(outputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """Return the distribution parameter that decides between actions.

    The logits of forbidden actions are set to 0. If ``policy_outputs`` does not know the class of
    the policy, there are no distribution parameters, and the array has the shape ``(n, 0)``.
    """
    names = [name for name in outputs if name != "action" and not name.startswith(NEXT_PREFIX)]
    if not names:
        return np.empty((len(outputs["action"]), 0))
    values = outputs[names[0]]
    return np.where(values < _MAX_FORBIDDEN_LOGIT, 0, values)
