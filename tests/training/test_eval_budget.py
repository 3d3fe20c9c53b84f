"""Tests of the time that a training waits for evaluations, with environments that are slow."""

from __future__ import annotations

import time
from typing import Any

import pytest

from mlflow_sb3.envs import env_spec
from mlflow_sb3.training import loop
from mlflow_sb3.training.checkpoint_selection import RACE_EPISODES, EvaluationSettings
from mlflow_sb3.training.eval_budget import EvaluationBudget
from mlflow_sb3.training.loop import TrainingResult

SLOW = env_spec.compose_spec("tests.environments:OneStep-v0", kwargs={"step_seconds": 0.02})


def train(**options: Any) -> TrainingResult:
    """Train in an environment whose evaluation takes much longer than learning."""
    hyperparams = {"n_steps": 2, "batch_size": 2, "n_epochs": 1}
    return loop.train(
        SLOW,
        "ppo",
        timesteps=100,
        hyperparams=hyperparams,
        evaluation=EvaluationSettings(**options),
    )


def test_a_budget_is_a_share_of_learning_with_a_minimum() -> None:
    assert EvaluationBudget(0.1, learn_seconds=30).seconds == 10
    assert EvaluationBudget(0.1, learn_seconds=500).seconds == 50


def test_half_of_the_budget_is_for_the_checkpoints() -> None:
    budget = EvaluationBudget(0.1, learn_seconds=200)

    assert budget.allows_wait()
    budget.add_wait(2)
    assert budget.allows_wait()
    budget.add_wait(3)
    assert not budget.allows_wait()  # three more waits would exceed half of 20 seconds
    assert budget.count_episodes(0.5) == 30
    budget.add_wait(13)
    assert budget.count_episodes(0.5) == 10
    assert budget.count_episodes(1000.0) == 1


@pytest.mark.parametrize("has_worker", [True, False])
def test_slow_episodes_are_fewer_and_stay_within_the_budget(
    has_worker: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlflow_sb3.training.eval_budget.FLOOR_SECONDS", 1.0)
    if not has_worker:
        monkeypatch.setattr("mlflow_sb3.training.forked_worker.is_available", lambda: False)
    learning = time_training(selection="none", episodes=1)
    start = time.monotonic()

    result = train()

    # Without the budget, 1,250 episodes of 20 ms take 25 s. A busy machine learns more slowly.
    assert time.monotonic() - start < learning + 8.0
    assert result.evaluation.steps is not None
    assert result.evaluation.race_episodes is not None
    assert len(result.evaluation.steps) < 49
    assert result.evaluation.race_episodes < RACE_EPISODES


def time_training(**options: Any) -> float:
    start = time.monotonic()
    train(**options)
    return time.monotonic() - start


def test_a_training_repeats_the_recorded_numbers_of_another_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mlflow_sb3.training.eval_budget.FLOOR_SECONDS", 1.0)
    first = train()

    second = train(steps=first.evaluation.steps, race_episodes=first.evaluation.race_episodes)

    assert second.to_table() == first.to_table()
    assert second.best_digest == first.best_digest
    assert second.evaluation.steps == first.evaluation.steps
