from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from mlflow_sb3.envs import entry_points, spec_rollout
from mlflow_sb3.envs.seeds import generate_episode_seeds
from mlflow_sb3.flavor.sb3_policy import SB3Policy
from mlflow_sb3.promotion.confidence import bound_mean_by_t
from mlflow_sb3.registry import integrity
from mlflow_sb3.reports.card_facts import CardReturns
from mlflow_sb3.tracking.run_logger import RunLogger
from mlflow_sb3.training import loop
from mlflow_sb3.training.card_facts import collect_card_facts, summarize_returns
from mlflow_sb3.training.checkpoint_selection import EvaluationSettings
from mlflow_sb3.training.config import TrainingConfig
from mlflow_sb3.training.loop import TrainingResult
from mlflow_sb3.training.training_record import (
    FreshEpisodes,
    PolicyDigests,
    TrainingFacts,
    TrainingRecord,
)
from mlflow_sb3.training.training_run import load_training_run, log_training_run
from tests.environments import OneStep
from tests.flavor.test_shipped_code import MAX_FILES, count_files
from tests.training.test_training_run import CONFIG, ONE_STEP

CODE = TrainingFacts("c0ffee", "1" * 64, "3.13.1", {}, "Fast CPU", "AVX2", 1)
RECORD = TrainingRecord(CONFIG, CODE, PolicyDigests("a", "b"))
RETURNS = [float(number) for number in range(1, 41)]


def log(result: TrainingResult, folder: Path, config: TrainingConfig = CONFIG) -> str:
    """Log a training to a finished run."""
    with mlflow.start_run() as run, RunLogger(run.info.run_id, folder / "run") as run_logger:
        run_logger.log_params(config.to_params())
        log_training_run(result, config, CODE, run_logger)
    return str(run.info.run_id)


@pytest.fixture(scope="module")
def result() -> TrainingResult:
    """Result of a short training with two checkpoints."""
    settings = EvaluationSettings(freq=64, race_episodes=38)
    return loop.train(
        ONE_STEP, "ppo", timesteps=128, hyperparams={"n_steps": 64}, evaluation=settings
    )


def test_the_figures_are_those_of_the_returns() -> None:
    assert summarize_returns(RECORD, FreshEpisodes(8, 10, RETURNS)) == CardReturns(
        episodes=40,
        mean=20.5,
        std=float(np.std(RETURNS)),
        worst=1.5,
        interval=bound_mean_by_t(np.array(RETURNS), 0.025),
        seeds='generate_episode_seeds(0, "choice", 40, start=10)',
        competitors=8,
    )


def test_the_interval_covers_the_mean_in_95_of_100_samples() -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(1_000):
        summary = summarize_returns(RECORD, FreshEpisodes(1, 0, random.normal(3, 2, 20).tolist()))
        assert summary is not None
        assert summary.interval is not None
        covered += summary.interval[0] <= 3 <= summary.interval[1]

    assert 930 <= covered <= 970


def test_a_single_episode_has_no_interval() -> None:
    summary = summarize_returns(RECORD, FreshEpisodes(1, 10, [5.0]))

    assert summary is not None
    assert summary.interval is None


@pytest.mark.parametrize("returns", [[], [1.0, float("nan")], [float("inf")]])
def test_returns_without_a_mean_have_no_figures(returns: list[float]) -> None:
    assert summarize_returns(RECORD, FreshEpisodes(1, 10, returns)) is None


def test_the_facts_of_a_run_are_those_of_its_training(
    result: TrainingResult, store: str, tmp_path: Path
) -> None:
    config = replace(CONFIG, from_model="models:/race/2", from_model_id="m-1")
    run = mlflow.get_run(log(result, tmp_path, config))

    facts = collect_card_facts(run, step=result.best.step)

    training = facts.training
    assert (training.timesteps, training.seed, training.kept_step) == (128, 0, result.best.step)
    assert (training.processor, training.torch_threads) == ("Fast CPU", 1)
    assert (training.python, training.commit, training.has_changes) == ("3.13.1", "c0ffee", True)
    assert (training.run_id, training.base_model) == (run.info.run_id, "models:/race/2")
    assert training.seconds == (run.info.end_time - run.info.start_time) / 1000
    assert facts.hyperparams == {"n_steps": "64"}
    assert str(facts.learning_curve)[2:].startswith(r"\x89PNG")
    assert facts.returns is not None
    assert facts.returns.mean == pytest.approx(result.best.score)
    assert facts.returns.competitors == 2


def test_the_seeds_of_the_card_give_the_same_returns(
    result: TrainingResult, store: str, tmp_path: Path
) -> None:
    run_id = log(result, tmp_path)
    facts = collect_card_facts(mlflow.get_run(run_id), step=result.best.step)
    assert facts.returns is not None

    assert (facts.returns.seeds, facts.returns.episodes) == (
        f'generate_episode_seeds(0, "choice", {len(result.best.returns)}, start=10)',
        len(result.best.returns),
    )
    seeds = generate_episode_seeds(0, "choice", len(result.best.returns), start=10)
    policy = SB3Policy.from_algorithm(
        load_training_run(run_id).model, OneStep.observation_space, OneStep.action_space
    )
    episodes = spec_rollout.play_episodes(policy, ONE_STEP, seeds)
    assert episodes.returns.tolist() == result.best.returns


def test_environments_that_start_from_no_seed_have_no_seeds() -> None:
    factory = json.dumps(json.loads(ONE_STEP) | {"entry_point": entry_points.FACTORY_ENTRY_POINT})
    record = replace(RECORD, config=replace(CONFIG, description=factory))

    summary = summarize_returns(record, FreshEpisodes(1, 10, RETURNS))

    assert summary is not None
    assert summary.seeds is None


def test_a_run_of_an_earlier_release_has_the_facts_that_it_stored(
    result: TrainingResult, store: str, tmp_path: Path
) -> None:
    run_id = log(result, tmp_path)
    uri = mlflow.get_run(run_id).info.artifact_uri
    values = json.loads(mlflow.artifacts.load_text(f"{uri}/training.json"))
    del values["episodes"]
    folder = Path(str(uri).removeprefix("file://"))
    (folder / "training.json").write_text(json.dumps(values))
    (folder / "learning_curve.png").unlink()

    facts = collect_card_facts(mlflow.get_run(run_id), step=64)

    assert (facts.returns, facts.learning_curve) == (None, None)
    assert facts.training.timesteps == 128
    (folder / "training.json").unlink()
    facts = collect_card_facts(mlflow.get_run(run_id), step=64)
    assert (facts.training.timesteps, facts.training.kept_step) == (None, 64)
    assert (facts.hyperparams, facts.training.run_id) == ({}, run_id)


def test_the_card_tells_that_the_run_was_resumed(
    result: TrainingResult, store: str, tmp_path: Path
) -> None:
    run_id = log(result, tmp_path)
    MlflowClient().set_tag(run_id, "mlflow_sb3.resumed_at", "64")
    MlflowClient().set_tag(run_id, "mlflow_sb3.inexact", "another processor")

    training = collect_card_facts(mlflow.get_run(run_id), step=64).training

    assert (training.resumed_at, training.inexact) == (64, "another processor")


def test_a_version_of_a_training_has_its_returns_and_its_picture(
    result: TrainingResult, store: str, tmp_path: Path
) -> None:
    run_id = log(result, tmp_path)

    version = load_training_run(run_id).log_model("mine", alias="challenger")

    description = str(MlflowClient().get_model_version("mine", "1").description)
    assert f"| mean return&ensp; | {result.best.score:.2f} |" in description
    assert f"| MLflow run&ensp; | `{run_id}` |" in description
    assert f"`{version.digest}`" in description
    with integrity.fetch_version(version) as folder:
        assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
        assert "The kept checkpoint is the best of 2" in (folder / "MODEL_CARD.md").read_text()
        assert count_files(folder) <= MAX_FILES
