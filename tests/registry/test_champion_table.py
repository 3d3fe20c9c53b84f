from __future__ import annotations

from mlflow_sb3.registry.champion_table import Champion, ChampionRow, add_champion, read_champions
from mlflow_sb3.registry.generated_text import MAX_LENGTH

HOUR = 3_600_000
FIRST = Champion(1, 0 * HOUR + 1, "22.90", "promoted: 22.90 vs 9.30 (random policy)")
SECOND = Champion(2, 30 * HOUR, "", "promoted without a gate: it is | safer")


def get_lines(text: str) -> list[str]:
    """Return the lines without the spaces behind the times."""
    return [line.replace("&ensp;", "") for line in text.splitlines() if line]


def test_the_table_has_the_champions_newest_first_with_their_times() -> None:
    text = add_champion("", "champion", FIRST, former=None)
    text = add_champion(text, "champion", SECOND, former=1)

    assert get_lines(text) == [
        "**champion**: version 2 <!-- mlflow-sb3: champion -->",
        "| version | from (UTC) | until (UTC) | mean return | why |",
        "| --- | --- | --- | --- | --- |",
        "| 2 | 1970-01-02 06:00 |  |  | promoted without a gate: it is / safer |",
        f"| 1 | 1970-01-01 00:00 | 1970-01-02 06:00 | 22.90 | {FIRST.why} |",
        "<!-- mlflow-sb3: end -->",
    ]


def test_the_first_line_has_the_mean_return_of_the_champion() -> None:
    text = add_champion("", "champion", FIRST, former=None)

    assert text.startswith("**champion**: version 1, mean return 22.90 <!--")


def test_a_repeated_call_changes_nothing() -> None:
    text = add_champion("", "champion", FIRST, former=None)

    assert add_champion(text, "champion", FIRST, former=None) == text


def test_a_champion_that_the_table_does_not_know_gets_a_row_without_times() -> None:
    text = add_champion("My model.", "champion", SECOND, former=7)

    assert text.startswith("My model.\n\n**champion**: version 2")
    assert "| 7 |  | 1970-01-02 06:00 |  | (no record) |" in "\n".join(get_lines(text))


def test_an_alias_that_was_moved_by_hand_ends_the_time_of_the_champion_before() -> None:
    text = add_champion("", "champion", FIRST, former=None)

    text = add_champion(text, "champion", SECOND, former=7)

    assert get_lines(text)[3:6] == [
        "| 2 | 1970-01-02 06:00 |  |  | promoted without a gate: it is / safer |",
        "| 7 |  | 1970-01-02 06:00 |  | (no record) |",
        f"| 1 | 1970-01-01 00:00 | (unknown) | 22.90 | {FIRST.why} |",
    ]


def test_a_version_that_is_champion_again_keeps_its_mean_return() -> None:
    text = add_champion("", "champion", FIRST, former=None)
    text = add_champion(text, "champion", SECOND, former=1)

    again = add_champion(text, "champion", Champion(1, 40 * HOUR, "", "again"), former=2)

    assert again.startswith("**champion**: version 1, mean return 22.90 <!--")
    assert "| 1 | 1970-01-02 16:00 |  | 22.90 | again |" in "\n".join(get_lines(again))


def test_each_alias_has_its_own_table() -> None:
    text = add_champion("", "champion", FIRST, former=None)
    text = add_champion(text, "staging", SECOND, former=None)

    third = add_champion(text, "champion", Champion(3, HOUR, "", "again"), former=1)

    assert "**champion**: version 3" in third
    assert "**staging**: version 2" in third
    assert "\n".join(get_lines(third)).count("| 2 | 1970-01-02 06:00 |  |  |") == 1


def test_the_oldest_rows_of_a_long_table_are_left_out() -> None:
    text = "mine"
    for number in range(1, 200):
        text = add_champion(text, "champion", Champion(number, HOUR, "", "x" * 50), former=None)

    assert len(text) <= MAX_LENGTH
    assert text.startswith("mine\n\n**champion**: version 199")
    assert add_champion("m" * MAX_LENGTH, "champion", FIRST, former=None) == "m" * MAX_LENGTH


def test_a_written_table_is_read_again() -> None:
    third = Champion(3, 40 * HOUR, "30.00", "promoted without a gate: 2 &lt; 3")
    text = add_champion("My model.", "champion", FIRST, former=None)
    text = add_champion(text, "champion", third, former=2)
    text = add_champion(text, "other", SECOND, former=None)

    assert read_champions(text, "champion") == [
        ChampionRow(3, "1970-01-02 16:00", "", "30.00", "promoted without a gate: 2 < 3"),
        ChampionRow(2, "", "1970-01-02 16:00", "", "(no record)"),
        ChampionRow(1, "1970-01-01 00:00", "(unknown)", "22.90", FIRST.why),
    ]
    assert read_champions("My model.", "champion") == []
