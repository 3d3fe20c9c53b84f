"""Tests of the step export."""

from __future__ import annotations

from pathlib import Path

from mlflow_sb3.cli.export_agent import export_agent
from mlflow_sb3.registry.model_version import Version
from tests.cli.commands import assert_fails, get_last_run, invoke
from tests.conftest import Keys


def test_a_version_is_exported(signed: Version, keys: Keys, tmp_path: Path) -> None:
    uri, folder = "models:/agent@champion", tmp_path / "exported"
    options = ["--model-uri", uri, "--folder", str(folder), "--public-key", str(keys.public)]

    result = invoke(export_agent, *options)
    again = invoke(export_agent, *options)

    assert result.exit_code == 0, result.output
    assert result.stdout.endswith(f"Exported {uri} to {folder}\n")
    assert (folder / "ppo-CartPole-v1.zip").exists()
    assert_fails(again, 1, "is not an empty folder")
    assert get_last_run().info.status == "FAILED"
