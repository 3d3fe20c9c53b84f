from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from stable_baselines3 import PPO

import mlflow_sb3
from mlflow_sb3.promotion import promote, promotion_run, replay, serving_check
from mlflow_sb3.promotion.gate import Gate
from mlflow_sb3.promotion.promote import PromotionOptions
from mlflow_sb3.registry import registration, versions
from mlflow_sb3.registry.model_version import Version


def find_folder(version: Version) -> Path:
    return Path(mlflow.get_logged_model(version.model_id).artifact_location.removeprefix("file://"))


def change(version: Version, **values: object) -> Version:
    """Change values in agent.json of a version, and register the changed files as a new version."""
    agent_json = find_folder(version) / "agent" / "agent.json"
    agent_json.write_text(json.dumps(json.loads(agent_json.read_text()) | values))
    return registration.register_version(version.model_id, version.name)


def test_a_version_that_predicts_its_stored_action_can_be_served(registered: Version) -> None:
    serving_check.check_servable(registered)

    values = json.loads((find_folder(registered) / "agent" / "agent.json").read_text())
    assert values["example_action"] in ([0], [1])


def test_a_version_that_predicts_another_action_is_refused(registered: Version) -> None:
    changed = change(registered, example_action=[7])

    with pytest.raises(
        MlflowException,
        match=r"agent/2 cannot be served: it predicts \[[01]\] .*, but predicted \[7\] when it was",
    ):
        serving_check.check_servable(changed)


def test_a_version_that_mlflow_cannot_load_is_refused_and_not_promoted(
    registered: Version,
) -> None:
    (find_folder(registered) / "MLmodel").write_text(
        (find_folder(registered) / "MLmodel")
        .read_text()
        .replace("mlflow_sb3.flavor", "nowhere.loader")
    )
    broken = registration.register_version(registered.model_id, "agent")

    with (
        mlflow.start_run(),
        pytest.raises(
            MlflowException, match="agent/2 cannot be served: its file MLmodel does not load"
        ),
    ):
        promote.promote_version(broken, PromotionOptions(force_reason="try it"))
    assert MlflowClient().get_registered_model("agent").aliases == {}
    description = MlflowClient().get_model_version("agent", "2").description
    assert " error: agent/2 cannot be served: its file MLmodel" in str(description)


@pytest.mark.train
def test_a_winner_that_cannot_be_served_keeps_its_evidence_and_is_not_replayed(
    levels: list[Version], tmp_path: Path
) -> None:
    folder = Path(
        mlflow.get_logged_model(levels[4].model_id).artifact_location.removeprefix("file://")
    )
    model = shutil.copytree(folder, tmp_path / "model")
    (model / "code" / "mlflow_sb3" / "flavor" / "__init__.py").write_text("raise RuntimeError\n")
    logged = mlflow.initialize_logged_model(name="broken")
    MlflowClient().log_model_artifacts(logged.model_id, str(model))
    mlflow.finalize_logged_model(logged.model_id, "READY")
    version = registration.register_version(logged.model_id, "levels")

    with pytest.raises(MlflowException, match="levels/6 cannot be served"):
        promote.promote_version(version, PromotionOptions(gate=Gate(episodes=60)))

    run = mlflow.active_run()
    assert run is not None
    record = promotion_run.load_record(run.info.run_id)
    assert (record.verdict, record.is_accepted) == ("error", False)
    assert record.evidence is not None
    assert len(record.evidence.episodes.seed) == 60
    with pytest.raises(MlflowException, match="failed after its episodes"):
        replay.replay_promotion(run.info.run_id)


@pytest.mark.process
def test_the_check_runs_the_code_of_the_model(registered: Version) -> None:
    loader = find_folder(registered) / "code" / "mlflow_sb3" / "flavor" / "__init__.py"
    loader.write_text(loader.read_text() + "\n")
    serving_check.check_servable(registration.register_version(registered.model_id, "agent"))
    loader.write_text("raise RuntimeError('of another version')\n")

    with pytest.raises(
        MlflowException,
        match="agent/3 cannot be served: RuntimeError: RuntimeError: of another version",
    ):
        serving_check.check_servable(registration.register_version(registered.model_id, "agent"))


def test_a_changed_file_is_refused_before_the_model_is_loaded(registered: Version) -> None:
    shutil.rmtree(find_folder(registered) / "code")

    with pytest.raises(MlflowException, match="changed after registration"):
        serving_check.check_servable(registered)


def test_an_input_example_of_the_caller_needs_no_stored_action(store: str, ppo: PPO) -> None:
    mlflow_sb3.log_model(
        ppo, name="agent", registered_model_name="agent", input_example=np.zeros((2, 4))
    )

    serving_check.check_servable(versions.find_version("agent", number=1))
