from __future__ import annotations

import pytest

from mlflow_sb3.reports.markdown import format_code, format_duration, format_table, format_text


def test_a_row_without_a_value_is_left_out() -> None:
    table = format_table([("a", "1"), ("b", None)])

    assert table == "| property | value |\n| --- | --- |\n| a | 1 |"


def test_a_table_without_rows_is_empty() -> None:
    assert format_table([("a", None)]) == ""


def test_the_header_can_be_chosen() -> None:
    assert format_table([("a", "1")], header=("x", "y")).startswith("| x | y |\n")


def test_values_cannot_break_a_table() -> None:
    assert format_code("a\n| `b`") == r"`a \| 'b'`"
    assert format_code("<!-- mlflow-sb3: end -->") == "`< !-- mlflow-sb3: end -->`"
    assert format_text("a\n| <b>") == r"a \| &lt;b>"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (7.6, "8 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (90_000, "25 h 0 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
