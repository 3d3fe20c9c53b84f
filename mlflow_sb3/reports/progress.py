"""Show the progress of long work on standard error."""

from __future__ import annotations

import sys
from typing import NoReturn

from tqdm import tqdm

_FILE_INTERVAL = 30.0
"""Seconds between two updates if standard error is a file, where each update stays."""


def make_bar(
    description: str, unit: str, *, total: int, initial: int = 0, is_shown: bool = True
) -> tqdm[NoReturn]:
    """Return a progress bar with the remaining time.

    Args:
        description: Text before the bar.
        unit: What is counted, such as ``"episode"``.
        total: Count at the end.
        initial: Count at the beginning.
        is_shown: False for a bar that shows nothing.
    """
    return tqdm(
        total=total,
        initial=initial,
        desc=description,
        unit=unit,
        disable=not is_shown,
        mininterval=1.0 if sys.stderr.isatty() else _FILE_INTERVAL,
    )
