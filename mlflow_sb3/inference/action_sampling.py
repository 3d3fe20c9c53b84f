"""Sample actions from the distribution parameters that an exported graph computes, with numpy.

A distribution is a dict of JSON values from ``agent.json``. Its key ``kind`` is one of
``deterministic``, ``epsilon_greedy``, ``categorical``, ``bernoulli``, ``gaussian``,
``squashed_gaussian`` and ``unknown``. The kind ``unknown`` cannot be sampled. The other keys depend
on the kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Outputs = dict[str, NDArray[Any]]


def sample_actions(
    distribution: dict[str, Any], outputs: Outputs, rng: np.random.Generator
) -> NDArray[Any]:
    """Sample an action for every observation of a batch, independently of the others.

    Args:
        distribution: Kind and constants of the distribution.
        outputs: Outputs of the graph: ``action`` of shape ``(n, *action_shape)`` and the
            distribution parameters.
        rng: Random generator.

    Returns:
        Actions of shape ``(n, *action_shape)``, scaled and clipped to the action space.

    Raises:
        ValueError: The kind is ``unknown``, or another kind that this module does not have.
    """
    if distribution["kind"] not in _SAMPLERS:
        raise ValueError(
            f"Actions of this agent cannot be sampled (distribution {distribution['kind']!r}). "
            "Call predict with deterministic=True."
        )
    sampler = _SAMPLERS[distribution["kind"]]
    return sampler(distribution, outputs, rng).reshape(outputs["action"].shape)


def _take_deterministic(
    _: dict[str, Any], outputs: Outputs, __: np.random.Generator
) -> NDArray[Any]:
    return outputs["action"]


def _sample_epsilon_greedy(
    distribution: dict[str, Any], outputs: Outputs, rng: np.random.Generator
) -> NDArray[Any]:
    """Return the greedy action, or a random one with probability ``epsilon``."""
    greedy = outputs["action"]
    random = rng.integers(distribution["n"], size=greedy.shape) + distribution["start"]
    return np.where(rng.random(greedy.shape) < distribution["epsilon"], random, greedy)


def _sample_categorical(
    distribution: dict[str, Any], outputs: Outputs, rng: np.random.Generator
) -> NDArray[Any]:
    """Sample each integer of an action. ``nvec`` has the number of values of each integer.

    The argmax of logits plus Gumbel noise is a sample of the categorical distribution.
    """
    noisy = outputs["logits"] + rng.gumbel(size=outputs["logits"].shape)
    ends = np.cumsum(distribution["nvec"])[:-1]
    values: NDArray[Any] = np.stack(
        [part.argmax(axis=1) for part in np.split(noisy, ends, axis=1)], axis=1
    )
    return np.asarray(values + np.array(distribution["start"]))


def _sample_bernoulli(
    _: dict[str, Any], outputs: Outputs, rng: np.random.Generator
) -> NDArray[Any]:
    return np.asarray(rng.logistic(size=outputs["logits"].shape) < outputs["logits"])


def _sample_gaussian(
    distribution: dict[str, Any], outputs: Outputs, rng: np.random.Generator
) -> NDArray[Any]:
    low, high = _read_bounds(distribution)
    return np.asarray(np.clip(_sample_normal(outputs, rng), low, high))


def _sample_squashed_gaussian(
    distribution: dict[str, Any], outputs: Outputs, rng: np.random.Generator
) -> NDArray[Any]:
    low, high = _read_bounds(distribution)
    return np.asarray(low + 0.5 * (np.tanh(_sample_normal(outputs, rng)) + 1.0) * (high - low))


def _sample_normal(outputs: Outputs, rng: np.random.Generator) -> NDArray[Any]:
    noise = rng.standard_normal(outputs["mean"].shape)
    return np.asarray(outputs["mean"] + np.exp(outputs["log_std"]) * noise)


def _read_bounds(distribution: dict[str, Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the flat bounds of the action space. JSON has null for an infinite bound."""
    low = np.array([-np.inf if value is None else value for value in distribution["low"]])
    high = np.array([np.inf if value is None else value for value in distribution["high"]])
    return low, high


_SAMPLERS: dict[str, Callable[[dict[str, Any], Outputs, np.random.Generator], NDArray[Any]]] = {
    "deterministic": _take_deterministic,
    "epsilon_greedy": _sample_epsilon_greedy,
    "categorical": _sample_categorical,
    "bernoulli": _sample_bernoulli,
    "gaussian": _sample_gaussian,
    "squashed_gaussian": _sample_squashed_gaussian,
}
