"""Tests of the command deliver. tests/faults delivers the journals of interrupted trainings."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from mlflow_sb3.cli.deliver import deliver


def test_a_folder_without_a_journal_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(deliver, [str(tmp_path)])

    assert result.exit_code == 1
    assert f"{tmp_path} contains no journal. Pass the folder" in result.stderr
