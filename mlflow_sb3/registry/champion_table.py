"""Write the table of champions into the description of a registered model."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mlflow_sb3.client.timestamps import format_time
from mlflow_sb3.registry.generated_text import MAX_LENGTH, Description

_HEADER = (
    "| version | from (UTC) | until (UTC) | mean return | why |\n| --- | --- | --- | --- | --- |"
)
_SPACE = "&ensp;"
"""Behind a time, because MLflow shows the columns of a table without space between them."""
_ROW = re.compile(
    rf"^\| (\d+) \| ([^|]*?)(?:{_SPACE})? \| ([^|]*?)(?:{_SPACE})? \| ([^|]*) \| ([^|]*) \|$",
    re.MULTILINE,
)
_NO_RECORD, _UNKNOWN = "(no record)", "(unknown)"


@dataclass(frozen=True)
class Champion:
    """A version that has an alias.

    Attributes:
        number: Number of the version.
        since: When it got the alias, in milliseconds since 1970; 0 if that is not known.
        mean_return: Mean return in the gate, formatted; empty without a gate. The table then has
            the mean return of an earlier row of this version.
        why: Why it got the alias, in one line.
    """

    number: int
    since: int
    mean_return: str
    why: str


@dataclass(frozen=True)
class ChampionRow:
    """Row of the table of champions. The times and the mean return are empty if not known."""

    number: int
    since: str
    until: str
    mean_return: str
    why: str


def read_champions(description: str, alias: str) -> list[ChampionRow]:
    """Return the table of champions in a description, newest first.

    Args:
        description: Description of the registered model.
        alias: Alias of the champions.
    """
    rows: list[tuple[str, ...]] = _ROW.findall(Description.parse(description, alias).generated)
    return [
        # The table has "<" as "&lt;", because MLflow shows descriptions as HTML.
        ChampionRow(int(number), since, until, mean_return, why.replace("&lt;", "<"))
        for number, since, until, mean_return, why in rows
    ]


def add_champion(description: str, alias: str, champion: Champion, *, former: int | None) -> str:
    """Add a champion to the table, and end the time of the champion before it.

    If the table has this row already, the description is returned as it is. If it lacks the former
    champion, a row without times is added for it.

    Args:
        description: Description of the registered model. The text outside of the table is kept.
        alias: Alias of the champions. Each alias has a table of its own.
        champion: The new champion.
        former: Number of the version that had the alias before, or None.
    """
    parsed = Description.parse(description, alias)
    rows = _ROW.findall(parsed.generated)
    since = format_time(champion.since) if champion.since else ""
    if rows and rows[0][:2] == (str(champion.number), since):
        return description
    if former is not None and (not rows or int(rows[0][0]) != former):
        if rows:
            number, begin, end, *others = rows[0]
            rows[0] = (number, begin, end or _UNKNOWN, *others)
        rows.insert(0, (str(former), "", "", "", _NO_RECORD))
    if rows:
        number, begin, end, *others = rows[0]
        rows[0] = (number, begin, end or since, *others)
    measured = (
        score for number, _, _, score, _ in rows if int(number) == champion.number and score
    )
    mean_return = champion.mean_return or next(measured, "")
    why = " ".join(champion.why.replace("|", "/").split())
    rows.insert(0, (str(champion.number), since, "", mean_return, why))
    while True:
        generated = _format_section(alias, rows)
        text = Description(parsed.above, generated, parsed.below).format(alias)
        if len(text) <= MAX_LENGTH:
            return text
        if len(rows) == 1:
            return description
        rows.pop()


def _format_section(alias: str, rows: list[tuple[str, ...]]) -> str:
    number, _, _, score, _ = rows[0]
    mean_return = f", mean return {score}" if score else ""
    lines = (
        f"| {version} | {begin}{_SPACE} | {end}{_SPACE} | {mean} | {why} |"
        for version, begin, end, mean, why in rows
    )
    table = "\n".join([_HEADER, *lines])
    return f"**{alias}**: version {number}{mean_return}\n\n{table}"
