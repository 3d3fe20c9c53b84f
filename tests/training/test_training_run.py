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
from mlflow_sb3.training import loop, provenance, training_run
from mlflow_sb3.training.config import TrainingConfig
from mlflow_sb3.training.loop import TrainingResult
from tests.conftest import Keys

ONE_STEP = env_spec.spec_to_json(env_spec.make_env("tests.environments:OneStep-v0").spec)
RECIPE = TrainingConfig(
    "OneStep-v0",
    "ppo",
    128,
    0,
    {"n_steps": 64},
    {},
    [],
    "",
    "",
    1,
    "none",
    ONE_STEP,
    {"n_steps": "64"},
)


@pytest.fixture(scope="module")
def trained() -> TrainingResult:
    return loop.train(ONE_STEP, "ppo", timesteps=128, hyperparams={"n_steps": 64})


@pytest.fixture
def run_id(store: str, trained: TrainingResult, tmp_path: Path) -> str:  # noqa: ARG001 a store to have a run in
    """A finished run that trained an agent."""
    with mlflow.start_run() as run, RunLogger(run.info.run_id, tmp_path / "run") as tracker:
        tracker.params(RECIPE.params())
        training_run.log(trained, RECIPE, provenance.collect_facts(1), tracker)
    return str(run.info.run_id)


def test_a_run_gives_back_the_agent_that_was_kept(run_id: str, trained: TrainingResult) -> None:
    loaded = training_run.load(run_id)

    kept = trained.model.policy.state_dict()
    assert all(
        torch.equal(value, kept[name]) for name, value in loaded.model.policy.state_dict().items()
    )
    assert (loaded.env_id, loaded.algo, loaded.step) == ("OneStep-v0", "ppo", trained.kept.step)
    assert loaded.description == ONE_STEP


def test_a_run_holds_the_candidates_and_the_score_of_the_kept_one(
    run_id: str, trained: TrainingResult
) -> None:
    table = mlflow.load_table("candidates.json", run_ids=[run_id])
    metrics = mlflow.get_run(run_id).data.metrics

    assert table["step"].tolist() == trained.table()["step"]
    assert metrics["eval/kept_step"] == trained.kept.step
    assert metrics["eval/kept_mean_reward"] == trained.kept.score


def test_the_model_belongs_to_the_run_and_to_the_step_of_the_agent(
    run_id: str, trained: TrainingResult
) -> None:
    version = training_run.load(run_id).log_model("mine", alias="challenger")

    logged = mlflow.get_logged_model(version.model_id)
    assert (version.name, version.number, version.run_id) == ("mine", 1, run_id)
    assert logged.source_run_id == run_id
    assert logged.name == "onestep-v0-ppo"
    assert versions.find_version("mine", alias="challenger") == version
    outputs = mlflow.get_run(run_id).outputs
    assert outputs is not None
    assert [(output.model_id, output.step) for output in outputs.model_outputs] == [
        (version.model_id, trained.kept.step)
    ]
    with integrity.fetch_version(version) as folder:
        assert (folder / "agent" / "policy.onnx").exists()


def test_the_model_of_a_run_is_signed(run_id: str, keys: Keys) -> None:
    version = training_run.load(run_id).log_model(
        "mine", alias="challenger", signing_key=keys.private
    )

    with integrity.fetch_version(version, public_key=keys.public) as folder:
        assert (folder / "agent" / "policy.onnx").exists()


def test_a_key_that_cannot_sign_logs_nothing(run_id: str, keys: Keys) -> None:
    with pytest.raises(MlflowException, match="is a public key"):
        training_run.load(run_id).log_model("mine", alias="challenger", signing_key=keys.public)

    assert mlflow.search_logged_models(output_format="list") == []


def test_an_agent_is_not_unpickled_where_that_is_forbidden(
    run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

    with pytest.raises(MlflowException, match=f"reading the agent of run {run_id} would unpickle"):
        training_run.load(run_id)


def test_an_agent_that_was_changed_is_not_unpickled(run_id: str, tmp_path: Path) -> None:
    (tmp_path / "agent.zip").write_bytes(b"another")
    MlflowClient().log_artifact(run_id, str(tmp_path / "agent.zip"), "agent")

    with pytest.raises(
        MlflowException, match=f"agent.zip of run {run_id} has the digest .* the file has changed"
    ):
        training_run.load(run_id)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("with_files", [False, True])
def test_a_run_that_kept_no_agent_is_refused(with_files: bool, tmp_path: Path) -> None:
    (tmp_path / "agent.zip").write_bytes(b"")
    with mlflow.start_run() as run:
        if with_files:
            mlflow.log_artifact(str(tmp_path / "agent.zip"), "agent")

    with pytest.raises(
        MlflowException,
        match=f"run {run.info.run_id} trained no agent; give the id of a finished run",
    ):
        training_run.load(run.info.run_id)
    assert MlflowClient().search_registered_models() == []


@pytest.mark.usefixtures("store")
def test_a_run_that_does_not_exist_is_refused() -> None:
    with pytest.raises(MlflowException, match="not found"):
        training_run.load("0" * 32)
