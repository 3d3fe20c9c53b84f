from __future__ import annotations

import io
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm

from mlflow_sb3.algorithms import builder
from mlflow_sb3.envs import env_spec, seeds
from mlflow_sb3.training import checkpoint_selection
from mlflow_sb3.training.callbacks import CheckpointCallback
from mlflow_sb3.training.checkpoint import Checkpoint
from mlflow_sb3.training.checkpoint_evaluator import CheckpointEvaluator
from mlflow_sb3.training.checkpoint_selection import RACE, EvaluationSettings
from tests.environments import OneStep

ONE_STEP = env_spec.spec_to_json(gymnasium.spec("OneStep-v0"))


def select(checkpoints: list[Checkpoint], **options: Any) -> tuple[BaseAlgorithm, Checkpoint]:
    """Return the model that evaluated the checkpoints, and the selected checkpoint."""
    model = PPO("MlpPolicy", gymnasium.make("OneStep-v0"), device="cpu", seed=1)
    evaluator = CheckpointEvaluator(model, ONE_STEP, seed=0)
    return model, checkpoint_selection.select_checkpoint(
        model, checkpoints, evaluator, EvaluationSettings(), **options
    )


def make_checkpoint(action: int) -> Checkpoint:
    """Return a checkpoint whose policy always takes one action, which is also its return."""
    model = PPO("MlpPolicy", gymnasium.make("OneStep-v0"), device="cpu", seed=0)
    with torch.no_grad():
        weights = dict(model.policy.named_parameters())
        weights["action_net.weight"][:] = 0.0
        weights["action_net.bias"][:] = torch.tensor([20.0, 0.0] if action == 0 else [0.0, 20.0])
    archive = io.BytesIO()
    model.save(archive)
    return Checkpoint(step=action, archive=archive.getvalue(), training_score=float(action))


def test_a_checkpoint_with_a_high_score_by_chance_is_not_selected() -> None:
    better, luckier = make_checkpoint(1), make_checkpoint(0)
    better.training_score, luckier.training_score = 0.2, 500.0

    model, selected = select([better, luckier])

    assert selected is better
    assert (better.score, luckier.score) == (1.0, 0.0)
    assert model.predict(model.observation_space.sample(), deterministic=True)[0] == 1


def test_a_tie_selects_the_later_checkpoint() -> None:
    early, late = make_checkpoint(1), make_checkpoint(1)
    early.step, late.step = 10, 20

    _, selected = select([late, early])

    assert selected is late


def test_the_selection_uses_episodes_that_training_did_not_use() -> None:
    hyperparams = {"n_steps": 16, "batch_size": 16}
    model = builder.build_algorithm("ppo", ONE_STEP, hyperparams, seed=3)
    evaluator = CheckpointEvaluator(model, ONE_STEP, seed=5)
    callback = CheckpointCallback(evaluator, EvaluationSettings(freq=16), 64)
    OneStep.seeds.clear()
    model.learn(64, callback=callback)
    training_seeds = set(OneStep.seeds)
    OneStep.seeds.clear()

    checkpoint_selection.select_checkpoint(
        model, callback.checkpoints, evaluator, EvaluationSettings()
    )

    selection_seeds = set(OneStep.seeds)
    n_episodes = sum(episodes for _, episodes in checkpoint_selection.RACE)
    assert set(seeds.generate_episode_seeds(5, "choice", 10)) < training_seeds
    assert len(selection_seeds) == n_episodes
    assert selection_seeds.isdisjoint(training_seeds)


def test_each_round_has_fewer_checkpoints_and_more_episodes() -> None:
    checkpoints = [make_checkpoint(step % 2) for step in range(8)]
    calls: list[None] = []

    select(checkpoints, on_episode=lambda: calls.append(None))

    n_returns = sorted(len(checkpoint.returns) for checkpoint in checkpoints)
    assert n_returns == [20, 20, 20, 20, 70, 70, 270, 270]
    assert len(calls) == checkpoint_selection.count_episodes(8, RACE) == 8 * 20 + 4 * 50 + 2 * 200


@pytest.mark.parametrize(("n_checkpoints", "expected"), [(1, 270), (3, 3 * 20 + 3 * 50 + 2 * 200)])
def test_count_episodes_of_few_checkpoints(n_checkpoints: int, expected: int) -> None:
    assert checkpoint_selection.count_episodes(n_checkpoints, RACE) == expected


@pytest.mark.parametrize(
    ("settings", "interval"),
    [
        (EvaluationSettings(), 20),
        (EvaluationSettings(freq=300), 300),
        (EvaluationSettings(freq=300, selection="none"), None),
    ],
)
def test_the_interval_between_checkpoints(
    settings: EvaluationSettings, interval: int | None
) -> None:
    assert settings.get_interval(1000) == interval
    assert EvaluationSettings().get_interval(10) == 1


@pytest.mark.parametrize(
    ("race_episodes", "rounds"),
    [
        (None, RACE),
        (760, RACE),
        (76, ((8, 2), (4, 5), (2, 20))),
        (10, ((4, 1), (2, 3))),
        (1, ((1, 1),)),
    ],
)
def test_a_race_of_fewer_episodes_has_shorter_rounds(
    race_episodes: int | None, rounds: tuple[tuple[int, int], ...]
) -> None:
    assert EvaluationSettings(race_episodes=race_episodes).rounds == rounds


def make_finalist(returns: list[float]) -> Checkpoint:
    return Checkpoint(0, b"", 0.0, returns=returns)


def test_the_confidence_is_high_if_all_episodes_agree() -> None:
    best, second = make_finalist([3.0, 5.0, 4.0]), make_finalist([2.0, 4.0, 3.0])
    early = make_finalist([9.0])

    assert checkpoint_selection.estimate_confidence(best, [early, second, best]) == 1.0


def test_the_confidence_is_half_if_the_episodes_disagree() -> None:
    generator = np.random.default_rng(0)
    best, second = (make_finalist(generator.normal(size=400).tolist()) for _ in range(2))
    best.returns[0] += sum(second.returns) - sum(best.returns)

    confidence = checkpoint_selection.estimate_confidence(best, [best, second])

    assert confidence == pytest.approx(0.5, abs=0.05)


def test_two_finalists_with_equal_returns_are_equally_good() -> None:
    best, second = make_finalist([500.0] * 9), make_finalist([500.0] * 9)

    assert checkpoint_selection.estimate_confidence(best, [best, second]) == 1.0


def test_there_is_no_confidence_without_another_finalist() -> None:
    best = make_finalist([1.0, 2.0])

    assert checkpoint_selection.estimate_confidence(best, [best, make_finalist([3.0])]) is None


def test_without_a_race_the_best_checkpoint_of_the_training_plays_a_few_new_episodes() -> None:
    checkpoints = [make_checkpoint(1), make_checkpoint(0)]
    checkpoints[0].training_score, checkpoints[1].training_score = 0.2, 500.0
    settings = EvaluationSettings(episodes=3, selection="best")
    model = PPO("MlpPolicy", gymnasium.make("OneStep-v0"), device="cpu", seed=1)
    evaluator = CheckpointEvaluator(model, ONE_STEP, seed=0)
    OneStep.seeds.clear()

    kept = checkpoint_selection.select_checkpoint(model, checkpoints, evaluator, settings)

    assert kept is checkpoints[1]
    assert kept.returns == [0.0] * 3
    assert checkpoints[0].returns == []
    assert OneStep.seeds == seeds.generate_episode_seeds(0, "choice", 3, start=3)


def test_keep_best_returns_the_best_checkpoint_last() -> None:
    checkpoints = [Checkpoint(step, b"", score) for step, score in enumerate([3.0, 1.0, 2.0])]

    best = checkpoint_selection.keep_best(checkpoints, 2)

    assert [checkpoint.training_score for checkpoint in best] == [2.0, 3.0]
