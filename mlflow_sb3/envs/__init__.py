"""Make environments and wrappers from JSON, describe spaces, and play episodes with policies."""

from __future__ import annotations

from typing import Any

import gymnasium

Env = gymnasium.Env[Any, Any]
"""Any Gymnasium environment."""
