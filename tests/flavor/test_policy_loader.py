from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from mlflow_sb3.flavor import policy_loader


def test_a_folder_without_an_agent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MlflowException, match=r"agent of this model cannot be loaded: .*agent\.js"):
        policy_loader.open_policy(tmp_path)


def test_an_agent_in_a_newer_format_is_refused(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved / "agent", tmp_path / "agent")
    file = tmp_path / "agent" / "agent.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema": 2}))

    with pytest.raises(MlflowException, match="has the schema 2, but this version of mlflow-sb3"):
        policy_loader.open_policy(tmp_path)
