"""Short trainings that are interrupted at a rollout and resumed."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3.common.logger import KVWriter

from mlflow_sb3.envs import env_spec
from mlflow_sb3.runs.signals import Interrupted, StopRequest
from mlflow_sb3.tracking import snapshot_header
from mlflow_sb3.training import loop, snapshot, snapshot_writer
from mlflow_sb3.training.checkpoint_selection import EvaluationSettings
from mlflow_sb3.training.loop import TrainingResult
from mlflow_sb3.training.snapshot import SnapshotState
from mlflow_sb3.training.snapshot_writer import SnapshotWriter

OFF_POLICY: dict[str, Any] = {
    "learning_starts": 50,
    "batch_size": 16,
    "buffer_size": 250,
    "train_freq": 8,
}
ON_POLICY: dict[str, Any] = {"n_steps": 32, "batch_size": 32}
OU_NOISE: dict[str, Any] = {"noise_type": "ornstein-uhlenbeck", "noise_std": 0.5}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "a2c": ("a2c", "CartPole-v1", {"n_steps": 1}),
    "ars, schedule": ("ars", "CartPole-v1", {"n_delta": 2, "learning_rate": "lin_0.02"}),
    "crossq": ("crossq", "Pendulum-v1", OFF_POLICY),
    "ddpg, several environments, OU noise": (
        "ddpg",
        "Pendulum-v1",
        OFF_POLICY | OU_NOISE | {"n_envs": 2},
    ),
    "dqn, overwritten buffer": ("dqn", "CartPole-v1", OFF_POLICY),
    "dqn, almost empty buffer": ("dqn", "CartPole-v1", OFF_POLICY | {"buffer_size": 50_000}),
    "dqn, whole episodes, optimized memory": (
        "dqn",
        "CartPole-v1",
        OFF_POLICY
        | {
            "train_freq": [1, "episode"],
            "optimize_memory_usage": True,
            "replay_buffer_kwargs": {"handle_timeout_termination": False},
        },
    ),
    "ppo, several environments": ("ppo", "CartPole-v1", ON_POLICY | {"n_envs": 2}),
    "ppo, gSDE, VecNormalize, schedule": (
        "ppo",
        "Pendulum-v1",
        ON_POLICY | {"use_sde": True, "normalize": True, "learning_rate": "lin_0.001"},
    ),
    "ppo, integer observations": ("ppo", "FrozenLake-v1", ON_POLICY),
    "ppo_lstm": ("ppo_lstm", "CartPole-v1", ON_POLICY),
    "ppo_mask": ("ppo_mask", "tests.environments:MaskedCartPole-v0", ON_POLICY),
    "qrdqn": ("qrdqn", "CartPole-v1", OFF_POLICY),
    "sac": ("sac", "Pendulum-v1", OFF_POLICY),
    "sac, gSDE": ("sac", "Pendulum-v1", OFF_POLICY | {"use_sde": True}),
    "td3, OU noise": ("td3", "Pendulum-v1", OFF_POLICY | OU_NOISE),
    "tqc": ("tqc", "Pendulum-v1", OFF_POLICY),
    "trpo": ("trpo", "CartPole-v1", ON_POLICY),
}
"""Algorithm, environment and hyperparameters, by the name of the case."""
TIMESTEPS = 300
CLOCK_METRICS = ("time/fps", "time/time_elapsed")
"""Metrics that depend on the clock."""


class MetricRecorder(KVWriter):
    """Output format of SB3's logger that records all metrics except those of the clock."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, str, float]] = []

    @property
    def curves(self) -> list[tuple[int, str, float]]:
        """Return the rows sorted by key.

        The order of the keys varies, because a worker process evaluates the checkpoints.
        """
        return sorted(self.rows, key=itemgetter(1))

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        assert isinstance(key_excluded, dict)
        self.rows += [
            (step, key, float(value))
            for key, value in key_values.items()
            if key not in CLOCK_METRICS
        ]

    def close(self) -> None:
        pass


class StopAtRollout(StopRequest):
    """SIGTERM that arrives before a rollout, counted from 1."""

    def __init__(self, rollout: int) -> None:
        self._remaining = rollout

    @property
    def requested(self) -> int | None:  # type: ignore[override]
        return 15 if self._remaining == 1 else None

    def raise_if_requested(self) -> None:
        if self._remaining == 1:
            raise Interrupted(15)
        self._remaining -= 1


EVALUATION = EvaluationSettings(freq=TIMESTEPS // 8, race_episodes=76)
"""The same checkpoints however busy the machine is, so that trainings can be compared."""


def make_env_spec_json(case: str) -> str:
    """Return the environment of a case, with episodes of at most ten steps."""
    return env_spec.compose_spec(CASES[case][1], kwargs={"max_episode_steps": 10})


def train_case(
    case: str, *, recorder: MetricRecorder | None = None, **options: Any
) -> tuple[TrainingResult, MetricRecorder]:
    """Train a case, and return its result and its metrics."""
    algo, _, hyperparams = CASES[case]
    recorder = recorder or MetricRecorder()
    result = loop.train(
        make_env_spec_json(case),
        algo,
        timesteps=TIMESTEPS,
        seed=1,
        hyperparams=hyperparams,
        writers=[recorder],
        evaluation=EVALUATION,
        **options,
    )
    return result, recorder


def interrupt_case(case: str, rollout: int, folder: Path, **options: Any) -> MetricRecorder:
    """Interrupt a case before a rollout, which leaves a snapshot in a folder."""
    recorder, writer = MetricRecorder(), SnapshotWriter(folder, every=10**9)
    with pytest.raises(Interrupted, match="SIGTERM"):
        train_case(
            case, recorder=recorder, snapshot_writer=writer, stop=StopAtRollout(rollout), **options
        )
    writer.wait()
    return recorder


def load_case(case: str, folder: Path) -> SnapshotState:
    """Load the newest snapshot of a case."""
    path = next(snapshot_writer.list_valid_snapshots(folder))
    header = snapshot_header.read_header(path)
    return snapshot.load_snapshot(
        path, snapshot.rebuild_envs(make_env_spec_json(case), header, seed=1)
    )
