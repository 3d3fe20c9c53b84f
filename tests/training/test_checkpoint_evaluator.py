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

from mlflow_sb3.algorithms import algorithms
from mlflow_sb3.envs import env_spec
from mlflow_sb3.training import forked_worker, loop
from mlflow_sb3.training.checkpoint import Checkpoint
from mlflow_sb3.training.checkpoint_evaluator import CheckpointEvaluator, EvaluationTask
from mlflow_sb3.training.loop import TrainingResult
from tests.processes import companions

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="there are companions on Linux alone"
)

SHORT = 20
TRAININGS: list[tuple[str, str, dict[str, Any]]] = [
    ("dqn", "CartPole-v1", {"learning_starts": 50, "train_freq": 8}),
    ("ppo", "Pendulum-v1", {"n_steps": 64, "normalize": True}),
    (
        "sac",
        "Pendulum-v1",
        {"learning_starts": 50, "batch_size": 16, "policy_kwargs": {"net_arch": [16]}},
    ),
]


def short(env_id: str) -> str:
    return json.dumps(
        json.loads(env_spec.spec_to_json(gymnasium.spec(env_id))) | {"max_episode_steps": SHORT}
    )


def trained(algo: str, env_id: str, hyperparams: dict[str, Any]) -> TrainingResult:
    return loop.train(short(env_id), algo, timesteps=256, seed=4, hyperparams=hyperparams)


def told(result: TrainingResult) -> list[Any]:
    """All that a choice hangs on."""
    return [
        result.digest,
        result.last_digest,
        *((one.step, one.training_score, one.returns) for one in result.candidates),
    ]


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Companions on a machine of one core too."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


@pytest.fixture
def entrants() -> list[Checkpoint]:
    """Three agents of one training, each another."""
    model = algorithms.build(
        "ppo", short("Pendulum-v1"), {"n_steps": 64, "normalize": True}, seed=0
    )
    return [Checkpoint.of(model.learn(64, reset_num_timesteps=False)) for _ in range(3)]


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize(("algo", "env_id", "hyperparams"), TRAININGS)
def test_a_training_ends_alike_with_a_companion_and_without(
    algo: str, env_id: str, hyperparams: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    accompanied = trained(algo, env_id, hyperparams)
    monkeypatch.setattr(forked_worker, "is_possible", lambda: False)
    alone = trained(algo, env_id, hyperparams)

    assert told(accompanied) == told(alone)


@pytest.mark.usefixtures("two_cores")
def test_a_companion_that_dies_changes_nothing(entrants: list[Checkpoint]) -> None:
    model = algorithms.build(
        "ppo", short("Pendulum-v1"), {"n_steps": 64, "normalize": True}, seed=1
    )
    task, nothing = (
        EvaluationTask(entrants, 10, 5),
        {"on_episode": lambda: None, "meanwhile": lambda: None},
    )
    alone = CheckpointEvaluator(model, short("Pendulum-v1"), seed=2)

    with CheckpointEvaluator.accompanied(model, short("Pendulum-v1"), seed=2) as player:
        (pid,) = companions()
        player.begin(entrants[0], 5)
        os.kill(pid, signal.SIGKILL)
        finished, lent = player.finish(entrants[0], 5), player.lend(task, **nothing)

    assert finished.returns.tolist() == alone.finish(entrants[0], 5).returns.tolist()
    assert [one.returns.tolist() for one in lent] == [
        one.returns.tolist() for one in alone.lend(task, **nothing)
    ]
    assert len({tuple(one.returns) for one in lent}) == len(entrants)


@pytest.mark.usefixtures("two_cores")
def test_it_is_the_companion_that_plays(
    entrants: list[Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = algorithms.build(
        "ppo", short("Pendulum-v1"), {"n_steps": 64, "normalize": True}, seed=1
    )
    here: list[int] = []
    put_into = Checkpoint.put_into

    def put_in_here(one: Checkpoint, model: BaseAlgorithm) -> None:
        here.append(one.step)
        put_into(one, model)

    with CheckpointEvaluator.accompanied(model, short("Pendulum-v1"), seed=2) as player:
        monkeypatch.setattr(Checkpoint, "policy", None)
        monkeypatch.setattr(Checkpoint, "put_into", put_in_here)
        player.begin(entrants[0], 5)
        finished = player.finish(entrants[0], 5)
        player.lend(
            EvaluationTask(entrants, 10, 5), on_episode=lambda: None, meanwhile=lambda: None
        )

    assert len(finished.returns) == 5
    assert here == [entrants[0].step, entrants[2].step]


@pytest.mark.usefixtures("two_cores")
def test_one_that_is_lost_is_given_up(
    entrants: list[Checkpoint], caplog: pytest.LogCaptureFixture
) -> None:
    model = algorithms.build(
        "ppo", short("Pendulum-v1"), {"n_steps": 64, "normalize": True}, seed=1
    )

    with CheckpointEvaluator.accompanied(model, short("Pendulum-v1"), seed=2) as player:
        (pid,) = companions()
        for _ in range(2):
            player.begin(entrants[0], 5)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            player.finish(entrants[0], 5)
        left = companions()

    assert left == []
    assert [record.message for record in caplog.records if "is lost" in record.message] == [
        "the second process, which played agents, is lost: it failed or died; training waits while agents play."
    ]


@pytest.mark.usefixtures("two_cores")
def test_every_episode_is_counted_whoever_plays_it(entrants: list[Checkpoint]) -> None:
    model = algorithms.build(
        "ppo", short("Pendulum-v1"), {"n_steps": 64, "normalize": True}, seed=1
    )
    counted: list[None] = []

    with CheckpointEvaluator.accompanied(model, short("Pendulum-v1"), seed=2) as player:
        player.lend(
            EvaluationTask(entrants, 10, 5),
            on_episode=lambda: counted.append(None),
            meanwhile=lambda: None,
        )

    assert len(counted) == 3 * 5


def test_who_finishes_what_another_process_began_plays_it_and_leaves_model_and_generators_alone(
    entrants: list[Checkpoint],
) -> None:
    model = algorithms.build(
        "ppo", short("Pendulum-v1"), {"n_steps": 64, "normalize": True}, seed=1
    )
    before, drawn = loop.weights_digest(model), torch.get_rng_state()

    first, second = (
        CheckpointEvaluator(model, short("Pendulum-v1"), seed=2).finish(one, 5)
        for one in entrants[:2]
    )

    assert first.returns.tolist() != second.returns.tolist()
    assert loop.weights_digest(model) == before
    assert torch.equal(torch.get_rng_state(), drawn)


@pytest.mark.usefixtures("two_cores")
def test_there_is_no_companion_where_pytorch_has_threads() -> None:
    model = algorithms.build("ppo", short("Pendulum-v1"), {"n_steps": 64}, seed=1)
    torch.set_num_threads(2)
    try:
        with CheckpointEvaluator.accompanied(model, short("Pendulum-v1"), seed=2):
            started = companions()
    finally:
        torch.set_num_threads(1)

    assert started == []
