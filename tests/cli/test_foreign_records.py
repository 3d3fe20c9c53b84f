"""Models and runs that another user wrote cannot make the steps run code by their descriptions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_sb3.cli.evaluate import evaluate
from mlflow_sb3.cli.promote import promote
from mlflow_sb3.cli.reproduce import reproduce
from mlflow_sb3.cli.train import train
from mlflow_sb3.registry import versions
from mlflow_sb3.registry.digest import hash_folder
from mlflow_sb3.registry.model_version import DIGEST_TAG, Version
from tests.cli.commands import TINY_TRAINING, assert_fails, get_last_run, invoke, succeed
from tests.registry.model_files import get_folder

REFUSED = "os:system is not imported, because the module os is neither installed nor"


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that does not exist. A hostile description creates it."""
    return tmp_path / "canary"


def attack(canary: Path) -> dict[str, Any]:
    """Return an ``EnvSpec`` whose entry point would run a shell command."""
    spec: dict[str, Any] = json.loads(gymnasium.spec("CartPole-v1").to_json())
    return spec | {"entry_point": "os:system", "kwargs": {"command": f"touch {canary}"}}


@pytest.fixture
def hostile(registered: Version, canary: Path) -> Version:
    """A version with a valid digest whose environment would run a shell command."""
    folder = get_folder(registered)
    path = folder / "agent" / "agent.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"environment": attack(canary)}))
    MlflowClient().set_model_version_tag("agent", "1", DIGEST_TAG, hash_folder(folder))
    versions.set_alias("agent", "champion", 1)
    return versions.find_version("agent", number=1)


def log_copy(run_id: str, name: str, changes: dict[str, Any]) -> str:
    """Log a changed copy of a JSON artifact to a new run, and return its id."""
    uri = f"{mlflow.get_run(run_id).info.artifact_uri}/{name}"
    content = json.loads(mlflow.artifacts.load_text(uri))
    for key, value in changes.items():
        content[key] = content[key] | value if isinstance(value, dict) else value
    with mlflow.start_run() as run:
        mlflow.log_dict(content, name)
    return str(run.info.run_id)


def test_evaluate_does_not_run_the_entry_point_of_a_version(hostile: Version, canary: Path) -> None:
    result = invoke(evaluate, "--model-name", hostile.name, "--episodes", "1")

    assert_fails(result, 1, REFUSED)
    assert not canary.exists()


def test_promote_does_not_run_the_entry_point_of_a_version(hostile: Version, canary: Path) -> None:
    number = str(hostile.number)

    result = invoke(promote, "--model-name", hostile.name, "--version", number, "--alias", "other")

    assert_fails(result, 1, REFUSED)
    assert not canary.exists()


def test_a_fine_tuning_does_not_run_the_entry_point_of_its_model(
    hostile: Version, canary: Path
) -> None:
    result = invoke(train, *TINY_TRAINING, "--from-model", hostile.uri)

    assert_fails(result, 1, REFUSED)
    assert not canary.exists()


@pytest.mark.parametrize("as_json", [True, False], ids=["EnvSpec", "id"])
def test_a_replay_does_not_run_the_environment_of_its_record(
    champion: Version, canary: Path, *, as_json: bool
) -> None:
    number = str(champion.number)
    succeed(
        promote,
        *("--model-name", champion.name, "--version", number, "--alias", "other"),
        *("--episodes", "2", "--environment", "challenger"),
    )
    environment = json.dumps(attack(canary)) if as_json else "canary_module:Maze-v0"
    run_id = log_copy(get_last_run().info.run_id, "promotion.json", {"judge": environment})

    result = invoke(promote, "--replay", run_id)

    assert_fails(result, 1, REFUSED if as_json else "canary_module:Maze-v0 is not imported")
    assert not canary.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wrappers": [{"torch.hub:load": {}}]}, "torch.hub:load is not called"),
        ({"wrappers": [{"os:system": {}}]}, "os:system is not imported"),
        ({"env": "canary_module:Maze-v0"}, "canary_module:Maze-v0 is not imported"),
        (
            {
                "env": "stable_baselines3.common.env_util:make_vec_env",
                "env_kwargs": {"env_id": "CartPole-v1", "monitor_dir": "canary"},
            },
            "stable_baselines3.common.env_util:make_vec_env is not called",
        ),
        (
            {"hyperparams": {"policy_kwargs": {"optimizer_class": "canary_module:Adam"}}},
            "canary_module:Adam is not imported",
        ),
        ({"description": "attack"}, "os:system is not imported"),
        ({"from_model": "models:/evil/1"}, "Repeating it would unpickle a file"),
        (
            {"hyperparams": {"env_wrapper": [{"torch.hub:load": {"model": "m"}}]}},
            "are not in the form that train records",
        ),
        (
            {"hyperparams": {"policy_kwargs": "dict(optimizer_class='canary_module:Adam')"}},
            "are not in the form that train records",
        ),
        (
            {"hyperparams": {"policy_kwargs": {"optimizer_class": "subprocess:Popen"}}},
            "subprocess:Popen",
        ),
    ],
)
def test_reproduce_does_not_import_what_a_record_names(
    champion: Version, canary: Path, changes: dict[str, Any], message: str
) -> None:
    if "description" in changes:
        changes = {"description": json.dumps(attack(canary))}
    if "env_kwargs" in changes:
        changes["env_kwargs"]["monitor_dir"] = str(canary)
    trained = str(MlflowClient().get_model_version(champion.name, "1").run_id)
    run_id = log_copy(trained, "training.json", {"recipe": changes})

    result = invoke(reproduce, "--run-id", run_id)

    assert_fails(result, 1, message)
    assert not canary.exists()
