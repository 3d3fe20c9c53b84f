from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger
from tqdm import tqdm

from mlflow_sb3.algorithms import algorithms, builder
from mlflow_sb3.envs import env_spec
from mlflow_sb3.runs.signals import Interrupted, StopRequest
from mlflow_sb3.training import checkpoint_selection, snapshot_writer
from mlflow_sb3.training.callbacks import CheckpointCallback, SnapshotCallback, TqdmCallback
from mlflow_sb3.training.checkpoint_evaluator import CheckpointEvaluator
from mlflow_sb3.training.checkpoint_selection import EvaluationSettings
from mlflow_sb3.training.learn_state import IterationLogger
from mlflow_sb3.training.snapshot_writer import SnapshotWriter
from tests.training.training_cases import MetricRecorder

ONE_STEP = env_spec.compose_spec("tests.environments:OneStep-v0")
OFF_POLICY = {"learning_starts": 16, "batch_size": 16, "buffer_size": 200}
HYPERPARAMS: dict[str, dict[str, Any]] = {
    "a2c": {},
    "ddpg": OFF_POLICY,
    "dqn": OFF_POLICY,
    "ppo": {"n_steps": 16, "batch_size": 16},
    "sac": OFF_POLICY,
    "td3": OFF_POLICY,
}


def make_short_spec(env_id: str) -> str:
    """Return an environment with episodes of five steps, as EnvSpec JSON."""
    values = json.loads(env_spec.spec_to_json(gymnasium.spec(env_id)))
    return json.dumps(values | {"max_episode_steps": 5})


def build_model(algo: str, env_spec_json: str) -> BaseAlgorithm:
    return builder.build_algorithm(algo, env_spec_json, HYPERPARAMS[algo], seed=3)


def learn_with_checkpoints(
    model: BaseAlgorithm, env_spec_json: str, *, every: int, seed: int = 0
) -> CheckpointCallback:
    """Train a model for 64 timesteps with a checkpoint callback, and return the callback."""
    evaluator = CheckpointEvaluator(model, env_spec_json, seed=seed)
    callback = CheckpointCallback(evaluator, EvaluationSettings(freq=every), 64)
    model.learn(64, callback=callback)
    return callback


@pytest.mark.train
@pytest.mark.parametrize(
    ("algo", "env_id"),
    [
        ("dqn", "CartPole-v1"),
        ("ppo", "CartPole-v1"),
        ("a2c", "CartPole-v1"),
        *((algo, "Pendulum-v1") for algo in ("ppo", "a2c", "sac", "td3", "ddpg")),
    ],
)
def test_checkpoints_do_not_change_the_training(algo: str, env_id: str) -> None:
    env_spec_json = make_short_spec(env_id)

    plain = build_model(algo, env_spec_json).learn(64).policy.state_dict()
    model = build_model(algo, env_spec_json)
    callback = learn_with_checkpoints(model, env_spec_json, every=8, seed=3)

    weights = model.policy.state_dict()
    assert len(callback.checkpoints) > 1
    assert [name for name in plain if not torch.equal(plain[name], weights[name])] == []


def test_checkpoints_are_evaluated_with_deterministic_actions() -> None:
    model = PPO(
        "MlpPolicy",
        gymnasium.make("OneStep-v0"),
        device="cpu",
        seed=0,
        n_steps=16,
        batch_size=16,
        learning_rate=1e-9,
    )
    with torch.no_grad():
        dict(model.policy.named_parameters())["action_net.bias"][:] = torch.tensor([0.0, 0.5])

    callback = learn_with_checkpoints(model, ONE_STEP, every=16)

    assert {checkpoint.training_score for checkpoint in callback.checkpoints} == {1.0}


def test_the_last_checkpoint_and_the_best_others_enter_the_selection() -> None:
    model = build_model("dqn", ONE_STEP)

    callback = learn_with_checkpoints(model, ONE_STEP, every=1)

    last = callback.checkpoints[-1]
    loaded = algorithms.get_algorithm_class("dqn").load(io.BytesIO(last.archive))
    weights = loaded.policy.state_dict()
    assert len(callback.checkpoints) == checkpoint_selection.MAX_CHECKPOINTS
    assert last.step == model.num_timesteps == 64
    assert all(
        torch.equal(value, weights[name]) for name, value in model.policy.state_dict().items()
    )


def test_a_checkpoint_dumps_the_recorded_values_first() -> None:
    recorder = MetricRecorder()
    model = build_model("ppo", ONE_STEP)
    model.set_logger(Logger(folder=None, output_formats=[recorder]))

    learn_with_checkpoints(model, ONE_STEP, every=64)

    loss_steps = [step for step, key, _ in recorder.rows if key == "train/loss"]
    reward_steps = [step for step, key, _ in recorder.rows if key == "eval/mean_reward"]
    assert max(loss_steps) == model.num_timesteps
    assert reward_steps == [model.num_timesteps]


def make_snapshot_callback(
    writer: SnapshotWriter | None, stop: StopRequest
) -> tuple[PPO, SnapshotCallback]:
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, seed=0, device="cpu")
    model.set_logger(IterationLogger([]))
    return model, SnapshotCallback([], writer=writer, stop=stop, rng_state=None)


def test_a_stop_request_takes_a_snapshot_and_interrupts(tmp_path: Path) -> None:
    stop = StopRequest()
    stop.requested = 15
    model, callback = make_snapshot_callback(SnapshotWriter(tmp_path, every=10**9), stop)

    with pytest.raises(Interrupted, match="SIGTERM"):
        model.learn(64, callback=callback)

    assert len(list(snapshot_writer.list_valid_snapshots(tmp_path))) == 1
    assert model.num_timesteps == 0


def test_a_stop_request_interrupts_without_a_snapshot_writer() -> None:
    stop = StopRequest()
    stop.requested = 2
    model, callback = make_snapshot_callback(None, stop)

    with pytest.raises(Interrupted, match="SIGINT"):
        model.learn(64, callback=callback)


def test_the_end_of_learning_takes_a_snapshot(tmp_path: Path) -> None:
    writer = SnapshotWriter(tmp_path, every=10**9)
    model, callback = make_snapshot_callback(writer, StopRequest())

    model.learn(64, callback=callback)
    writer.wait()

    assert writer.count == 1


def test_the_progress_bar_counts_the_steps_of_all_environments() -> None:
    hyperparams = {"n_steps": 16, "batch_size": 16, "n_envs": 2}
    model = builder.build_algorithm("ppo", ONE_STEP, hyperparams, seed=0)
    with tqdm(total=64, disable=False, file=io.StringIO()) as bar:
        model.learn(64, callback=TqdmCallback(bar))

        assert bar.n == 64
