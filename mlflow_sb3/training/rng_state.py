"""The states of the global random generators."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm

RngState = dict[str, Any]


def get_rng_state() -> RngState:
    """The states of the global generators."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "random": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": cuda,
    }


def set_rng_state(states: RngState) -> None:
    """Set the global generators."""
    random.setstate(states["random"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


def samples_before_rollouts(model: BaseAlgorithm) -> bool:
    """Whether the algorithm draws from the generators at the beginning of an iteration, before callbacks hear of a rollout: ARS."""
    return hasattr(model, "evaluate_candidates")
