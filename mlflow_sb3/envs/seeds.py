"""Generate seeds of episodes in independent streams."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

SeedStream = Literal["learning", "choice", "gate", "evaluation"]
"""Use of the episodes: training, choice of a checkpoint, gate of a promotion, or ``evaluate``."""


def generate_episode_seeds(
    seed: int, stream: SeedStream, count: int, *, start: int = 0
) -> list[int]:
    """Return the seeds of the episodes ``start`` to ``start + count - 1`` of a stream.

    The streams are children of ``numpy.random.SeedSequence(seed)``, so they are independent.
    The gate therefore does not play the episodes that the choice of a checkpoint was based on.
    A stream does not depend on ``count``: a longer list starts with the shorter one.

    Args:
        seed: Base seed of all streams.
        stream: Use of the episodes.
        count: Number of episodes.
        start: Index of the first episode in the stream.

    Returns:
        ``count`` integers in [0, 2**31), the range that every environment accepts.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(get_args(SeedStream).index(stream),))
    return [int(word) >> 1 for word in sequence.generate_state(start + count)[start:]]
