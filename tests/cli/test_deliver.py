"""Tests of the command deliver. tests/faults delivers the journals of interrupted trainings."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from mlflow import MlflowClient

from mlflow_sb3.cli.deliver import deliver
from mlflow_sb3.tracking.journal import Journal


def test_a_folder_without_a_journal_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(deliver, [str(tmp_path)])

    assert result.exit_code == 1
    assert f"{tmp_path} contains no journal. Pass the folder" in result.stderr


def test_a_script_without_snapshots_is_not_offered_to_resume(store: str, tmp_path: Path) -> None:
    run_id = MlflowClient().create_run("0").info.run_id
    journal = Journal(tmp_path / "run", run_id, store)
    journal.append(tags={"key": "value"})
    journal.close()

    result = CliRunner().invoke(deliver, [str(tmp_path / "run")])

    assert result.exit_code == 0, result.output
    assert f"has received everything of run {run_id}" in result.output
    assert "Resume" not in result.output
    assert MlflowClient().get_run(run_id).data.tags["key"] == "value"
