"""Suggest the name that a user probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a question with the most similar known name, such as ``" Did you mean 'ppo'?"``.

    Args:
        name: Name that does not exist.
        known: Names that exist.

    Returns:
        The question with a space before it, or an empty text if no known name is similar.
    """
    by_lowercase = {candidate.lower(): candidate for candidate in known}
    similar = difflib.get_close_matches(name.lower(), by_lowercase, n=1)
    return f" Did you mean {by_lowercase[similar[0]]!r}?" if similar else ""
