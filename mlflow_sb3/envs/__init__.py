"""Environments as ``EnvSpec`` JSON, their wrappers and spaces, and rollouts of policies in them."""

from __future__ import annotations

from typing import Any

import gymnasium

Env = gymnasium.Env[Any, Any]
"""Any Gymnasium environment."""
