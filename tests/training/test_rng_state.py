from __future__ import annotations

import pickle
import random

import numpy as np
import torch

from mlflow_sb3.training import rng_state


def draw() -> tuple[float, float, float]:
    """Draw one number from each global random generator."""
    return random.random(), float(np.random.random()), float(torch.rand(1))


def test_the_same_numbers_follow_a_restored_state() -> None:
    state = rng_state.get_rng_state()
    before = draw()

    rng_state.set_rng_state(state)

    assert draw() == before


def test_a_state_can_be_pickled() -> None:
    state = pickle.loads(pickle.dumps(rng_state.get_rng_state()))  # noqa: S301
    before = draw()

    rng_state.set_rng_state(state)

    assert draw() == before


def test_draws_inside_the_context_do_not_change_later_draws() -> None:
    state = rng_state.get_rng_state()
    expected = draw()
    rng_state.set_rng_state(state)

    with rng_state.preserve_rng_state():
        inside = draw()

    assert draw() == expected == inside
