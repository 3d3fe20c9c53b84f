from __future__ import annotations

import pytest

from mlflow_sb3.reports.number_format import format_number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (500.0, "500.00"),
        (-0.5, "-0.50"),
        (0.0, "0.00"),
        (0.00234, "0.0023"),
        (-1e-7, "-1e-07"),
        (None, "unknown"),
    ],
)
def test_small_numbers_keep_two_significant_digits(value: float | None, text: str) -> None:
    assert format_number(value) == text
