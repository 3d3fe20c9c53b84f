"""Describe the champions of a registered model in a section of a report."""

from __future__ import annotations

from datetime import UTC, datetime

from mlflow_sb3.client.timestamps import format_time, now_ms
from mlflow_sb3.registry import alias_history
from mlflow_sb3.registry.champion_table import ChampionRow, read_champions
from mlflow_sb3.reports.champions_plot import Reign, plot_champions
from mlflow_sb3.reports.html_report import Picture, Section, Table

_COLUMNS = ("version", "from (UTC)", "until (UTC)", "mean return in the gate", "why")


def build_champions_section(name: str, alias: str) -> Section | None:
    """Return the table of champions, and a plot if there are at least two to plot.

    Args:
        name: Name of the registered model.
        alias: Alias of the champions.

    Returns:
        The section. None if the description of the model has no table of champions.
    """
    history = alias_history.read_history(name, alias)
    rows = read_champions(history.description, alias)
    if not rows:
        return None
    reigns = list_reigns(rows, history.champion, now_ms())
    table = [(str(row.number), row.since, row.until, row.mean_return, row.why) for row in rows]
    return Section(
        f"Versions that were {alias}",
        pictures=[_draw(reigns)] if len(reigns) > 1 else [],
        tables=[Table(f"{alias} of {name}, newest first", _COLUMNS, table, has_texts=True)],
    )


def list_reigns(rows: list[ChampionRow], champion: int | None, now: int) -> list[Reign]:
    """Return the rows whose times and mean return are known, oldest first.

    Args:
        rows: Table of champions, newest first.
        champion: Number of the current champion; None if there is none.
        now: Time up to which the current champion is plotted, in milliseconds since 1970.
    """
    current = rows[0] if rows[0].number == champion and not rows[0].until else None
    reigns = []
    for row in reversed(rows):
        since = _parse_time(row.since)
        until = _parse_time(format_time(now) if row is current else row.until)
        if since is not None and until is not None and row.mean_return:
            mean_return = float(row.mean_return)
            reigns.append(Reign(row.number, since, until, mean_return, is_current=row is current))
    return reigns


def _draw(reigns: list[Reign]) -> Picture:
    moves = "; ".join(
        f"version {reign.number} from {reign.since:%Y-%m-%d %H:%M}, mean return {reign.mean_return}"
        for reign in reigns
    )
    return Picture(
        plot_champions(reigns),
        alt=f"Mean return of each version over time: {moves}",
        caption="Each line begins when the version got the alias. The mean returns are from "
        "different gates, which have different seeds.",
    )


def _parse_time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:  # not known
        return None
