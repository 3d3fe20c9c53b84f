"""Sampled actions, from the parameters that the graph computes, with numpy alone.

A distribution is a dict of JSON values, as it stands in the card of an agent: its ``kind``, and what the kind needs.
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
    """Draw one action for every observation of a batch, each independently of the others.

    Args:
        distribution: ``{"kind": "deterministic"}``, or another kind of this module with what it needs.
        outputs: What the graph computed: ``action`` of shape ``(n, *action_shape)`` and the parameters of the kind.
        rng: Is drawn from.

    Returns:
        Actions of shape ``(n, *action_shape)``, scaled and clipped as the environment takes them.

    Raises:
        ValueError: The kind is unknown here.
    """
    if distribution["kind"] not in _KINDS:
        raise ValueError(
            f"actions of this agent cannot be sampled ({distribution['kind']}); call predict with deterministic=True."
        )
    drawn = _KINDS[distribution["kind"]](distribution, outputs, rng)
    return drawn.reshape(outputs["action"].shape)


def _deterministic(_: dict[str, Any], outputs: Outputs, __: np.random.Generator) -> NDArray[Any]:
    return outputs["action"]


def _epsilon_greedy(
    distribution: dict[str, Any], outputs: Outputs, rng: np.random.Generator
) -> NDArray[Any]:
    """The greedy action, or with probability ``epsilon`` any."""
    greedy = outputs["action"]
    anything = rng.integers(distribution["n"], size=greedy.shape) + distribution["start"]
    return np.where(rng.random(greedy.shape) < distribution["epsilon"], anything, greedy)


def _categorical(
    distribution: dict[str, Any], outputs: Outputs, rng: np.random.Generator
) -> NDArray[Any]:
    """One choice, or several beside each other, of the sizes ``nvec``; adding Gumbel noise to logits makes argmax a sample."""
    noisy = outputs["logits"] + rng.gumbel(size=outputs["logits"].shape)
    ends = np.cumsum(distribution["nvec"])[:-1]
    chosen: NDArray[Any] = np.stack(
        [part.argmax(axis=1) for part in np.split(noisy, ends, axis=1)], axis=1
    )
    return np.asarray(chosen + np.array(distribution["start"]))


def _bernoulli(_: dict[str, Any], outputs: Outputs, rng: np.random.Generator) -> NDArray[Any]:
    return np.asarray(rng.logistic(size=outputs["logits"].shape) < outputs["logits"])


def _gaussian(
    distribution: dict[str, Any], outputs: Outputs, rng: np.random.Generator
) -> NDArray[Any]:
    low, high = _bounds(distribution)
    return np.asarray(np.clip(_normal(outputs, rng), low, high))


def _squashed_gaussian(
    distribution: dict[str, Any], outputs: Outputs, rng: np.random.Generator
) -> NDArray[Any]:
    low, high = _bounds(distribution)
    return np.asarray(low + 0.5 * (np.tanh(_normal(outputs, rng)) + 1.0) * (high - low))


def _normal(outputs: Outputs, rng: np.random.Generator) -> NDArray[Any]:
    return np.asarray(
        outputs["mean"] + np.exp(outputs["log_std"]) * rng.standard_normal(outputs["mean"].shape)
    )


def _bounds(distribution: dict[str, Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Flat lists; null where there is no bound."""
    low = np.array([-np.inf if value is None else value for value in distribution["low"]])
    high = np.array([np.inf if value is None else value for value in distribution["high"]])
    return low, high


_KINDS: dict[str, Callable[[dict[str, Any], Outputs, np.random.Generator], NDArray[Any]]] = {
    "deterministic": _deterministic,
    "epsilon_greedy": _epsilon_greedy,
    "categorical": _categorical,
    "bernoulli": _bernoulli,
    "gaussian": _gaussian,
    "squashed_gaussian": _squashed_gaussian,
}
