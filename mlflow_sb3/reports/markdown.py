"""Format values and tables as Markdown."""

from __future__ import annotations

from collections.abc import Iterable


def format_code(value: object) -> str:
    """Return a value as inline code in one line that may stand in a table."""
    text = " ".join(str(value).split()).replace("`", "'").replace("|", r"\|")
    text = text.replace("<!--", "< !--")  # marks of generated sections
    return f"`{text}`"


def format_text(value: object) -> str:
    """Return a text in one line that may stand in a table, with HTML escaped."""
    return " ".join(str(value).split()).replace("<", "&lt;").replace("|", r"\|")


def format_table(
    rows: Iterable[tuple[str, str | None]], *, header: tuple[str, str] = ("property", "value")
) -> str:
    """Return a table of names and values.

    Args:
        rows: Names and Markdown values. A row whose value is None is left out.
        header: Titles of the columns.

    Returns:
        The table; empty if no row is left.
    """
    lines = [f"| {name} | {value} |" for name, value in rows if value is not None]
    return "\n".join([f"| {' | '.join(header)} |", "| --- | --- |", *lines]) if lines else ""


def format_duration(seconds: float) -> str:
    """Return a duration such as ``"2 h 5 min"``, ``"3 min 20 s"`` or ``"8 s"``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
