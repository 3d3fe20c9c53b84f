from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from typing import Any

import gymnasium
import pytest
import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from mlflow_sb3.algorithms import builder
from mlflow_sb3.envs import env_spec
from mlflow_sb3.training import forked_worker, loop
from mlflow_sb3.training.checkpoint import Checkpoint
from mlflow_sb3.training.checkpoint_evaluator import CheckpointEvaluator, EvaluationTask
from mlflow_sb3.training.checkpoint_selection import EvaluationSettings
from mlflow_sb3.training.loop import TrainingResult
from tests.processes import list_forked_workers

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="worker processes are only forked on Linux"
)

NO_CALLBACKS: dict[str, Any] = {"on_episode": lambda: None, "while_waiting": lambda: None}
TRAININGS = [
    ("dqn", "CartPole-v1", {"learning_starts": 50, "train_freq": 8}),
    ("ppo", "Pendulum-v1", {"n_steps": 64, "normalize": True}),
    pytest.param(
        "sac",
        "Pendulum-v1",
        {"learning_starts": 50, "batch_size": 16, "policy_kwargs": {"net_arch": [16]}},
        marks=pytest.mark.train,
    ),
]


def make_short_spec(env_id: str) -> str:
    """Return an environment with episodes of at most 20 steps, as EnvSpec JSON."""
    values = json.loads(env_spec.spec_to_json(gymnasium.spec(env_id)))
    return json.dumps(values | {"max_episode_steps": 20})


PENDULUM = make_short_spec("Pendulum-v1")


def train(algo: str, env_id: str, hyperparams: dict[str, Any]) -> TrainingResult:
    env_spec_json = make_short_spec(env_id)
    return loop.train(
        env_spec_json,
        algo,
        timesteps=256,
        seed=4,
        hyperparams=hyperparams,
        evaluation=EvaluationSettings(budget=1e6, race_episodes=76),
    )


def list_results(result: TrainingResult) -> list[Any]:
    """Return the digests of a training, and all returns that the selection depends on."""
    return [
        result.best_digest,
        result.last_digest,
        *((row.step, row.training_score, row.returns) for row in result.checkpoints),
    ]


def build_model(seed: int) -> BaseAlgorithm:
    hyperparams = {"n_steps": 64, "normalize": True}
    return builder.build_algorithm("ppo", PENDULUM, hyperparams, seed=seed)


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow worker processes even on a machine with one core."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


@pytest.fixture
def checkpoints() -> list[Checkpoint]:
    """Three different checkpoints of one training."""
    model = build_model(0)
    return [Checkpoint.from_model(model.learn(64, reset_num_timesteps=False)) for _ in range(3)]


@pytest.mark.train
@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize(("algo", "env_id", "hyperparams"), TRAININGS)
def test_a_training_has_the_same_result_with_and_without_a_worker(
    algo: str, env_id: str, hyperparams: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_worker = train(algo, env_id, hyperparams)
    monkeypatch.setattr(forked_worker, "is_available", lambda: False)
    without_worker = train(algo, env_id, hyperparams)

    assert list_results(with_worker) == list_results(without_worker)


@pytest.mark.usefixtures("two_cores")
def test_a_killed_worker_does_not_change_the_returns(checkpoints: list[Checkpoint]) -> None:
    model, task = build_model(1), EvaluationTask(checkpoints, 10, 5)
    reference = CheckpointEvaluator(model, PENDULUM, seed=2)

    with CheckpointEvaluator.with_worker(model, PENDULUM, seed=2) as evaluator:
        (pid,) = list_forked_workers()
        evaluator.start(checkpoints[0], 5)
        os.kill(pid, signal.SIGKILL)
        first = evaluator.finish(checkpoints[0], 5)
        results = evaluator.evaluate_in_model(task, **NO_CALLBACKS)

    expected = reference.evaluate_in_model(task, **NO_CALLBACKS)
    returns = [episodes.returns.tolist() for episodes in results]
    assert first.returns.tolist() == reference.finish(checkpoints[0], 5).returns.tolist()
    assert returns == [episodes.returns.tolist() for episodes in expected]
    assert len(set(map(tuple, returns))) == len(checkpoints)


@pytest.mark.usefixtures("two_cores")
def test_the_worker_evaluates_every_second_checkpoint(
    checkpoints: list[Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded_here: list[int] = []
    load_into = Checkpoint.load_into

    def record_and_load(checkpoint: Checkpoint, model: BaseAlgorithm) -> None:
        loaded_here.append(checkpoint.step)
        load_into(checkpoint, model)

    with CheckpointEvaluator.with_worker(build_model(1), PENDULUM, seed=2) as evaluator:
        monkeypatch.setattr(Checkpoint, "build_policy", None)
        monkeypatch.setattr(Checkpoint, "load_into", record_and_load)
        evaluator.start(checkpoints[0], 5)
        episodes = evaluator.finish(checkpoints[0], 5)
        evaluator.evaluate_in_model(EvaluationTask(checkpoints, 10, 5), **NO_CALLBACKS)

    assert len(episodes.returns) == 5
    assert loaded_here == [checkpoints[0].step, checkpoints[2].step]


@pytest.mark.usefixtures("two_cores")
def test_a_lost_worker_is_not_used_again(
    checkpoints: list[Checkpoint], caplog: pytest.LogCaptureFixture
) -> None:
    with CheckpointEvaluator.with_worker(build_model(1), PENDULUM, seed=2) as evaluator:
        (pid,) = list_forked_workers()
        for _ in range(2):
            evaluator.start(checkpoints[0], 5)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            evaluator.finish(checkpoints[0], 5)
        remaining = list_forked_workers()

    assert remaining == []
    message = "The worker process for evaluations is lost: it failed or was killed."
    assert caplog.text.count(message) == 1


@pytest.mark.usefixtures("two_cores")
def test_the_episodes_of_the_worker_are_counted(checkpoints: list[Checkpoint]) -> None:
    calls: list[None] = []

    with CheckpointEvaluator.with_worker(build_model(1), PENDULUM, seed=2) as evaluator:
        evaluator.evaluate_in_model(
            EvaluationTask(checkpoints, 10, 5),
            on_episode=lambda: calls.append(None),
            while_waiting=lambda: None,
        )

    assert len(calls) == 3 * 5


def test_an_evaluation_without_a_worker_changes_neither_model_nor_random_generators(
    checkpoints: list[Checkpoint],
) -> None:
    model = build_model(1)
    digest, rng_state = loop.compute_weights_digest(model), torch.get_rng_state()

    first, second = (
        CheckpointEvaluator(model, PENDULUM, seed=2).finish(checkpoint, 5)
        for checkpoint in checkpoints[:2]
    )

    assert first.returns.tolist() != second.returns.tolist()
    assert loop.compute_weights_digest(model) == digest
    assert torch.equal(torch.get_rng_state(), rng_state)


@pytest.mark.usefixtures("two_cores")
def test_no_worker_is_forked_if_pytorch_uses_threads() -> None:
    model = build_model(1)
    torch.set_num_threads(2)
    try:
        with CheckpointEvaluator.with_worker(model, PENDULUM, seed=2):
            pids = list_forked_workers()
    finally:
        torch.set_num_threads(1)

    assert pids == []
