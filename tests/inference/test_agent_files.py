from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlflow_sb3.inference.agent_files import AgentInfo, Parity
from mlflow_sb3.inference.policy_inputs import SpaceInfo


def make_values(**changes: Any) -> dict[str, Any]:
    """The content of agent.json, as a JSON file has it."""
    info = AgentInfo(
        algorithm="stable_baselines3.ppo.ppo.PPO",
        observation_space=SpaceInfo("Dict", spaces={"a": SpaceInfo("Box", (3,), "float32")}),
        action_space=SpaceInfo("Discrete(2)", (), "int64", 0, 1),
        versions={"mlflow": "3.17"},
        digests={"agent.zip": "00"},
        inference="onnx",
        environment={"id": "CartPole-v1"},
        example_action=[0],
        distribution={"kind": "deterministic"},
        parity=Parity(512, 256, 1e-7, 0),
    )
    values: dict[str, Any] = json.loads(json.dumps(info.to_json() | changes))
    return values


def test_what_is_written_is_read_again() -> None:
    values = make_values()

    assert AgentInfo.from_json(values).to_json() == AgentInfo.from_json(values).to_json()
    assert json.loads(json.dumps(AgentInfo.from_json(values).to_json())) == values


def test_a_file_has_the_documented_keys() -> None:
    assert list(make_values()) == [
        "schema",
        "algorithm",
        "observation_space",
        "action_space",
        "versions",
        "digests",
        "inference",
        "environment",
        "example_action",
        "distribution",
        "parity",
    ]


def test_a_native_agent_has_no_keys_of_an_export() -> None:
    values = make_values(distribution=None, parity=None, inference="native")

    assert {"distribution", "parity"}.isdisjoint(AgentInfo.from_json(values).to_json())


def test_a_file_without_a_schema_has_the_first_one() -> None:
    values = make_values()
    del values["schema"]

    assert AgentInfo.from_json(values).to_json()["schema"] == 1


def test_an_unknown_key_is_ignored() -> None:
    assert AgentInfo.from_json(make_values(colour="red")) == AgentInfo.from_json(make_values())


def test_a_newer_schema_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has the schema 2, but .* Install a newer version of ml"):
        AgentInfo.from_json(make_values(schema=2))


def test_a_missing_key_is_named() -> None:
    values = make_values()
    del values["algorithm"]

    with pytest.raises(ValueError, match=r"agent\.json is incomplete: .*'algorithm'"):
        AgentInfo.from_json(values)


@pytest.mark.parametrize("inference", ["pickle", "ONNX", None, ["onnx"]])
def test_an_unknown_inference_backend_is_refused(inference: Any) -> None:
    with pytest.raises(ValueError, match=r"agent\.json has the inference backend .* only onnx and"):
        AgentInfo.from_json(make_values() | {"inference": inference})


def test_a_space_without_a_shape_is_refused() -> None:
    values = make_values()
    del values["action_space"]["shape"]

    with pytest.raises(ValueError, match=r"agent\.json is incomplete: 'shape'"):
        AgentInfo.from_json(values)


def test_a_file_that_is_no_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "agent.json").write_text("[]")

    with pytest.raises(ValueError, match=r"agent\.json is no JSON object"):
        AgentInfo.read(tmp_path)


def test_a_changed_file_is_refused() -> None:
    with pytest.raises(ValueError, match=r"agent\.zip has changed since it was saved \(digest 2cf"):
        AgentInfo.from_json(make_values()).check_digest("agent.zip", b"hello")


def test_the_environment_is_env_spec_json() -> None:
    info = AgentInfo.from_json(make_values())

    assert info.env_spec_json == '{"id": "CartPole-v1"}'
    assert AgentInfo.from_json(make_values(environment=None)).env_spec_json is None
