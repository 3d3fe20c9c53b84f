"""Save and restore the states of the global random generators."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class RngState:
    """States of the global random generators of Python, NumPy and PyTorch."""

    python_state: tuple[Any, ...]
    numpy_state: Any
    torch_state: torch.Tensor
    cuda_states: list[torch.Tensor]
    """One state for each CUDA device. Empty without CUDA."""


def get_rng_state() -> RngState:
    """Return the states of the global random generators."""
    return RngState(
        python_state=random.getstate(),
        numpy_state=np.random.get_state(),
        torch_state=torch.get_rng_state(),
        cuda_states=torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    )


def set_rng_state(state: RngState) -> None:
    """Set the states of the global random generators."""
    random.setstate(state.python_state)
    np.random.set_state(state.numpy_state)
    torch.set_rng_state(state.torch_state)
    if state.cuda_states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state.cuda_states)


@contextmanager
def preserve_rng_state() -> Iterator[None]:
    """Restore the states of the global random generators at the end of the context."""
    state = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(state)
