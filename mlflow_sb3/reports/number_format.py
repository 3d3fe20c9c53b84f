"""Format returns for descriptions and figures."""

from __future__ import annotations

SMALL_RETURN = 0.1
"""Absolute value below which a return has two significant digits instead of two decimals."""


def format_number(value: float | None) -> str:
    """Format a return with two decimal places, or two significant digits if it is small.

    Args:
        value: Number to show; None gives ``"unknown"``.
    """
    if value is None:
        return "unknown"
    has_decimals = value == 0 or abs(value) >= SMALL_RETURN
    return f"{value:.2f}" if has_decimals else f"{value:.2g}"
