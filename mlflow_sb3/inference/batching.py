"""Observations, many at once: an array, or a dict of arrays for Dict spaces; the first axis counts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Observations = NDArray[Any] | dict[str, NDArray[Any]]


def stack_observations(observations: Sequence[Any]) -> Observations:
    """Put single observations into one batch."""
    first = observations[0]
    if isinstance(first, Mapping):
        return {key: np.array([observation[key] for observation in observations]) for key in first}
    return np.array(observations)


def take_rows(batch: Observations, rows: slice) -> Observations:
    """Some observations of a batch."""
    return (
        {key: values[rows] for key, values in batch.items()}
        if isinstance(batch, dict)
        else batch[rows]
    )


def concatenate(batches: Sequence[Observations]) -> Observations:
    """Batches behind one another."""
    first = batches[0]
    if isinstance(first, dict):
        return {
            key: np.concatenate([batch[key] for batch in batches if isinstance(batch, dict)])
            for key in first
        }
    return np.concatenate([batch for batch in batches if not isinstance(batch, dict)])


def batch_size(batch: Observations) -> int:
    """How many observations a batch has."""
    return len(next(iter(batch.values())) if isinstance(batch, dict) else batch)
