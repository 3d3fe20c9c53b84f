"""Return and format timestamps in the unit that MLflow stores."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now_ms() -> int:
    """Return the current time in milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


def format_time(milliseconds: int) -> str:
    """Format a time as date, hour and minute in UTC.

    Args:
        milliseconds: Milliseconds since the Unix epoch.
    """
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M")
