"""Define the style of all plots: size, fonts and colors."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#43494f"
"""Colors that people with any color vision can tell apart, by Okabe and Ito (2008)."""

_FONTS = (
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "SimHei",
    "PingFang SC",
    "Hiragino Sans",
    "Yu Gothic",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
    "Noto Sans CJK KR",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Arial Unicode MS",
)
"""Fonts in the order in which a missing character is looked up. Those not installed are skipped."""
_REPLACEMENT = "?"


@contextmanager
def apply_style(width: float = 8.0, height: float = 4.5) -> Iterator[Figure]:
    """Create a figure that is legible at half of its size, and plot in it inside the context.

    Args:
        width: Width in inches, of 100 pixels each.
        height: Height in inches.
    """
    style: dict[Any, Any] = {
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 14,
        "figure.titlesize": 15,
        "font.family": list(_find_fonts()),
        "font.size": 13,
        "text.parse_math": False,
    }
    with mpl.rc_context(style):
        yield Figure(figsize=(width, height), dpi=100, layout="constrained")


def format_text(text: str, width: int = 70) -> str:
    """Wrap a text, and replace characters that no installed font can show by a question mark.

    Args:
        text: Text that may contain names of users.
        width: Largest number of characters in a line.
    """
    shown = "".join(char if _has_glyph(char) else _REPLACEMENT for char in text)
    return textwrap.fill(shown, width)


@cache
def _find_fonts() -> tuple[str, ...]:
    installed = set(font_manager.get_font_names())
    return tuple(font for font in _FONTS if font in installed)


@cache
def _has_glyph(char: str) -> bool:
    return char.isspace() or any(
        font_manager.get_font(font_manager.findfont(font)).get_char_index(ord(char))
        for font in _find_fonts()
    )
