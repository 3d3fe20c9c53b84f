"""Stack, slice and join batches of observations.

A batch is an array, or a dict of arrays for a Dict space. The first axis counts the observations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Observations = NDArray[Any] | dict[str, NDArray[Any]]


def stack_observations(observations: Sequence[Any]) -> Observations:
    """Stack single observations into a batch."""
    first = observations[0]
    if isinstance(first, Mapping):
        return {key: np.array([observation[key] for observation in observations]) for key in first}
    return np.array(observations)


def take_rows(batch: Observations, rows: slice) -> Observations:
    """Return a slice of a batch."""
    if isinstance(batch, dict):
        return {key: values[rows] for key, values in batch.items()}
    return batch[rows]


def concatenate(batches: Sequence[Observations]) -> Observations:
    """Join batches along the first axis."""
    first = batches[0]
    if isinstance(first, dict):
        return {
            key: np.concatenate([batch[key] for batch in batches if isinstance(batch, dict)])
            for key in first
        }
    return np.concatenate([batch for batch in batches if not isinstance(batch, dict)])


def get_batch_size(batch: Observations) -> int:
    """Return the number of observations in a batch."""
    return len(next(iter(batch.values())) if isinstance(batch, dict) else batch)
