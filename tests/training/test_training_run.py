from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_sb3.envs import env_spec
from mlflow_sb3.registry import integrity, versions
from mlflow_sb3.tracking.run_logger import RunLogger
from mlflow_sb3.training import loop, provenance
from mlflow_sb3.training.config import TrainingConfig
from mlflow_sb3.training.loop import TrainingResult
from mlflow_sb3.training.training_run import load_training_run, log_training_run
from tests.conftest import Keys

ONE_STEP = env_spec.spec_to_json(env_spec.make_env("tests.environments:OneStep-v0").spec)
CONFIG = TrainingConfig(
    env="OneStep-v0",
    algo="ppo",
    timesteps=128,
    seed=0,
    hyperparams={"n_steps": 64},
    env_kwargs={},
    wrappers=[],
    from_model="",
    from_model_id="",
    torch_threads=1,
    preset="none",
    description=ONE_STEP,
    resolved={"n_steps": "64"},
)


@pytest.fixture(scope="module")
def result() -> TrainingResult:
    """Result of a short training."""
    return loop.train(ONE_STEP, "ppo", timesteps=128, hyperparams={"n_steps": 64})


@pytest.fixture
def run_id(store: str, result: TrainingResult, tmp_path: Path) -> str:
    """A finished training run with the agent of `result`."""
    with (
        mlflow.start_run() as run,
        RunLogger(run.info.run_id, tmp_path / "run") as run_logger,
    ):
        run_logger.log_params(CONFIG.to_params())
        log_training_run(result, CONFIG, provenance.collect_facts(1), run_logger)
    return str(run.info.run_id)


def test_the_logged_agent_is_loaded(run_id: str, result: TrainingResult) -> None:
    loaded = load_training_run(run_id)

    weights, expected = loaded.model.policy.state_dict(), result.model.policy.state_dict()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert (loaded.env_id, loaded.algo, loaded.step) == ("OneStep-v0", "ppo", result.best.step)
    assert loaded.env_spec_json == ONE_STEP


def test_a_run_has_the_table_of_checkpoints_and_the_score_of_the_best(
    run_id: str, result: TrainingResult
) -> None:
    table = mlflow.load_table("candidates.json", run_ids=[run_id])
    metrics = mlflow.get_run(run_id).data.metrics

    assert table["step"].tolist() == result.to_table()["step"]
    assert metrics["eval/kept_step"] == result.best.step
    assert metrics["eval/kept_mean_reward"] == result.best.score


@pytest.mark.train
def test_the_model_belongs_to_the_run_and_to_the_step_of_the_agent(
    run_id: str, result: TrainingResult
) -> None:
    version = load_training_run(run_id).log_model("mine", alias="challenger")

    model = mlflow.get_logged_model(version.model_id)
    assert (version.name, version.number, version.run_id) == ("mine", 1, run_id)
    assert (model.source_run_id, model.name) == (run_id, "onestep-v0-ppo")
    assert versions.find_version("mine", alias="challenger") == version
    outputs = mlflow.get_run(run_id).outputs
    assert outputs is not None
    assert [(output.model_id, output.step) for output in outputs.model_outputs] == [
        (version.model_id, result.best.step)
    ]
    with integrity.fetch_version(version) as folder:
        assert (folder / "agent" / "policy.onnx").exists()


def test_log_model_completes_the_version_of_a_killed_step(run_id: str) -> None:
    training_run = load_training_run(run_id)
    with mlflow.start_run() as killed:
        version = training_run.log_model("mine", alias="challenger")
    MlflowClient().set_terminated(killed.info.run_id, "KILLED")
    MlflowClient().update_model_version("mine", "1", "")  # the step had not written the card

    with mlflow.start_run() as step_run:
        completed = training_run.log_model("mine", alias="challenger")

    assert completed.number == version.number
    entity = MlflowClient().get_model_version("mine", str(version.number))
    assert entity.tags["mlflow.sb3.logged_by"] == step_run.info.run_id
    assert str(entity.description).startswith("**Model card**: PPO agent for OneStep-v0")


def test_log_model_adds_a_version_after_a_finished_step(run_id: str) -> None:
    training_run = load_training_run(run_id)
    numbers = []
    for _ in range(2):
        with mlflow.start_run():
            numbers.append(training_run.log_model("mine", alias="challenger").number)

    assert numbers == [1, 2]


def test_the_model_of_a_run_can_be_signed(run_id: str, keys: Keys) -> None:
    version = load_training_run(run_id).log_model(
        "mine", alias="challenger", signing_key=keys.private
    )

    with integrity.fetch_version(version, public_key=keys.public) as folder:
        assert (folder / "agent" / "policy.onnx").exists()


def test_nothing_is_logged_with_a_key_that_cannot_sign(run_id: str, keys: Keys) -> None:
    training_run = load_training_run(run_id)

    with pytest.raises(MlflowException, match="is a public key"):
        training_run.log_model("mine", alias="challenger", signing_key=keys.public)

    assert mlflow.search_logged_models(output_format="list") == []


def test_no_agent_is_unpickled_if_unpickling_is_forbidden(
    run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

    with pytest.raises(MlflowException, match=f"Loading the agent of run {run_id} would unpickle"):
        load_training_run(run_id)


def test_a_changed_agent_is_not_unpickled(run_id: str, tmp_path: Path) -> None:
    (tmp_path / "agent.zip").write_bytes(b"another")
    MlflowClient().log_artifact(run_id, str(tmp_path / "agent.zip"), "agent")

    with pytest.raises(
        MlflowException, match=rf"agent\.zip of run {run_id} changed after training \(digest "
    ):
        load_training_run(run_id)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("has_file", [False, True])
def test_a_run_without_a_trained_agent_is_rejected(has_file: bool, tmp_path: Path) -> None:
    (tmp_path / "agent.zip").write_bytes(b"")
    with mlflow.start_run() as run:
        if has_file:
            mlflow.log_artifact(str(tmp_path / "agent.zip"), "agent")

    with pytest.raises(
        MlflowException,
        match=rf"Run {run.info.run_id} has no trained agent\. Pass the id of a finished run",
    ):
        load_training_run(run.info.run_id)
    assert MlflowClient().search_registered_models() == []


@pytest.mark.usefixtures("store")
def test_a_missing_run_is_rejected() -> None:
    with pytest.raises(MlflowException, match="not found"):
        load_training_run("0" * 32)
