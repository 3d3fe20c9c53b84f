from __future__ import annotations

import pytest

from mlflow_sb3.reports import progress


def test_a_bar_in_a_file_takes_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.make_bar("gate", "episode", total=1000) as bar:
        for _ in range(1000):
            bar.update()

    text = capfd.readouterr().err
    assert text.count("\n") == 1
    assert text.count("\r") <= 3
    assert "gate: 100%" in text


def test_a_hidden_bar_shows_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.make_bar("gate", "episode", total=1, is_shown=False) as bar:
        bar.update()

    assert capfd.readouterr().err == ""
