"""Seeds of episodes, in independent streams."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

SeedStream = Literal["learning", "choice", "gate", "evaluation"]


def episode_seeds(seed: int, stream: SeedStream, count: int, *, start: int = 0) -> list[int]:
    """Seeds of the episodes ``start`` to ``start + count`` of a stream.

    One seed gives four independent streams, so that no episode that chose an agent judges it.
    Streams are the children of ``numpy.random.SeedSequence(seed)``. A longer list begins with the shorter one.

    Returns:
        ``count`` integers in [0, 2**31), which every environment takes.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(get_args(SeedStream).index(stream),))
    return [int(word) >> 1 for word in sequence.generate_state(start + count)[start:]]
