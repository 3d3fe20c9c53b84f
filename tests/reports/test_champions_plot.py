from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest

from mlflow_sb3.reports.champions_plot import Reign, plot_champions

START = datetime(2026, 1, 1, tzinfo=UTC)


def make_reigns(count: int, time: timedelta) -> list[Reign]:
    return [
        Reign(
            number=1 + index,
            since=START + index * time,
            until=START + (index + 1) * time,
            mean_return=10.0 * index,
            is_current=index == count - 1,
        )
        for index in range(count)
    ]


@pytest.mark.parametrize("minutes", [0, 1, 7, 60 * 24, 60 * 24 * 400])
def test_reigns_of_any_length_are_plotted_without_warnings(minutes: int) -> None:
    figure = plot_champions(make_reigns(3, timedelta(minutes=minutes)))

    figure.savefig(io.BytesIO(), format="svg")  # a warning is an error
    assert [text.get_text() for text in figure.axes[0].texts] == ["v1", "v2", "v3"]


def test_only_the_last_of_many_champions_are_named() -> None:
    (axes,) = plot_champions(make_reigns(40, timedelta(days=1))).axes

    assert [text.get_text() for text in axes.texts] == [f"v{n}" for n in range(29, 41)]
