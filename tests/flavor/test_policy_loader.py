from __future__ import annotations

import hashlib
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


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "null",
        "[]",
        "{}",
        "[" * 100_000,
        '{"inference": "onnx"}',
        json.dumps({"inference": "onnx", "observation_space": 3, "action_space": None}),
        json.dumps({"inference": "onnx", "observation_space": {"spaces": [1]}}),
    ],
    ids=range(9),
)
def test_a_damaged_description_is_an_mlflow_exception(
    content: str, saved: Path, tmp_path: Path
) -> None:
    shutil.copytree(saved / "agent", tmp_path / "agent")
    (tmp_path / "agent" / "agent.json").write_text(content)

    with pytest.raises(MlflowException, match="The agent of this model cannot be loaded: "):
        policy_loader.open_policy(tmp_path)


@pytest.mark.parametrize("key", ["digests", "distribution", "environment", "versions", "parity"])
def test_a_value_of_another_type_is_an_mlflow_exception(
    key: str, saved: Path, tmp_path: Path
) -> None:
    shutil.copytree(saved / "agent", tmp_path / "agent")
    file = tmp_path / "agent" / "agent.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: 7}))

    with pytest.raises(MlflowException, match="The agent of this model cannot be loaded: "):
        policy_loader.open_policy(tmp_path)


@pytest.mark.parametrize("graph", [b"", b"no graph", bytes(1000)])
def test_a_graph_that_onnxruntime_cannot_open_is_an_mlflow_exception(
    graph: bytes, saved: Path, tmp_path: Path
) -> None:
    shutil.copytree(saved / "agent", tmp_path / "agent")
    (tmp_path / "agent" / "policy.onnx").write_bytes(graph)
    file = tmp_path / "agent" / "agent.json"
    values = json.loads(file.read_text())
    values["digests"]["policy.onnx"] = hashlib.sha256(graph).hexdigest()
    file.write_text(json.dumps(values))

    with pytest.raises(MlflowException, match=r"onnxruntime cannot open policy\.onnx: "):
        policy_loader.open_policy(tmp_path)
