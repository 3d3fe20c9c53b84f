from __future__ import annotations

from datetime import UTC, datetime

from mlflow_sb3.registry.champion_table import ChampionRow
from mlflow_sb3.reports.champions_section import list_reigns

ROWS = [
    ChampionRow(3, "1970-01-03 00:00", "", "9.50", "promoted"),
    ChampionRow(7, "", "1970-01-03 00:00", "", "(no record)"),
    ChampionRow(2, "1970-01-02 00:00", "(unknown)", "8.00", "promoted"),
    ChampionRow(1, "1970-01-01 00:00", "1970-01-02 00:00", "5.00", "promoted"),
]
NOW = 3 * 24 * 3_600_000


def day(number: int) -> datetime:
    return datetime(1970, 1, number, tzinfo=UTC)


def test_reigns_are_listed_from_the_oldest_one_if_their_times_are_known() -> None:
    reigns = list_reigns(ROWS, 3, NOW)

    assert [(reign.number, reign.since, reign.until, reign.mean_return) for reign in reigns] == [
        (1, day(1), day(2), 5.0),
        (3, day(3), day(4), 9.5),
    ]
    assert [reign.is_current for reign in reigns] == [False, True]


def test_a_reign_that_a_user_ended_by_hand_has_no_known_end() -> None:
    assert [reign.number for reign in list_reigns(ROWS, 4, NOW)] == [1]
