"""Spaces and small hyperparameters for the tests of algorithms."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

BOX = spaces.Box(-1, 1, (3,))
IMAGE = spaces.Box(0, 255, (36, 36, 3), np.uint8)
SMALL_OFF_POLICY = {"buffer_size": 100, "learning_starts": 10, "batch_size": 8}
SMALL_PPO = {"n_steps": 8, "batch_size": 8, "n_epochs": 1}
SMALL: dict[str, dict[str, Any]] = {
    "a2c": {"n_steps": 8},
    "ars": {"n_delta": 1},
    "trpo": {"n_steps": 8, "batch_size": 8},
    **dict.fromkeys(("ppo", "ppo_lstm", "ppo_mask"), SMALL_PPO),
    **dict.fromkeys(("crossq", "ddpg", "dqn", "qrdqn", "sac", "td3", "tqc"), SMALL_OFF_POLICY),
}
"""Hyperparameters with which each algorithm learns in a few steps."""
