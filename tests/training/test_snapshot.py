"""Resume trainings from snapshots, and compare them with uninterrupted trainings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from mlflow.exceptions import MlflowException
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecNormalize

from mlflow_sb3.algorithms import builder
from mlflow_sb3.envs import env_spec
from mlflow_sb3.runs.signals import Interrupted
from mlflow_sb3.tracking import snapshot_header
from mlflow_sb3.tracking.snapshot_header import FIRST_LINE, SNAPSHOT_SCHEMA
from mlflow_sb3.training import loop, snapshot, snapshot_writer
from mlflow_sb3.training.snapshot_writer import SnapshotWriter
from tests.training.training_cases import (
    CASES,
    EVALUATION,
    OFF_POLICY,
    ON_POLICY,
    TIMESTEPS,
    MetricRecorder,
    StopAtRollout,
    interrupt_case,
    load_case,
    make_env_spec_json,
    train_case,
)

PICTURE = "tests.environments:Picture-v0"
NORMALIZED_REWARDS: dict[str, Any] = {"normalize": {"norm_obs": False, "norm_reward": True}}


@pytest.mark.train
@pytest.mark.parametrize("case", CASES)
def test_a_resumed_training_ends_with_the_weights_and_metrics_of_an_uninterrupted_one(
    case: str, tmp_path: Path
) -> None:
    whole, expected = train_case(case)
    for rollout in (1, 2, 4):
        folder = tmp_path / str(rollout)

        recorder = interrupt_case(case, rollout, folder)
        resumed, _ = train_case(case, recorder=recorder, resume_from=load_case(case, folder))

        digests = resumed.last_digest, resumed.best_digest
        assert digests == (whole.last_digest, whole.best_digest), rollout
        assert recorder.curves == expected.curves, rollout


@pytest.mark.train
def test_a2c_resumes_between_two_of_its_dumps_a_hundred_rollouts_apart(tmp_path: Path) -> None:
    expected, recorder = MetricRecorder(), MetricRecorder()
    options: dict[str, Any] = {
        "env_spec_json": make_env_spec_json("a2c"),
        "algo": "a2c",
        "timesteps": 1600,
        "seed": 1,
        "evaluation": EVALUATION,
    }
    whole = loop.train(**options, writers=[expected])
    writer = SnapshotWriter(tmp_path, every=10**9)

    with pytest.raises(Interrupted, match="SIGTERM"):
        loop.train(**options, writers=[recorder], snapshot_writer=writer, stop=StopAtRollout(2))
    resumed = loop.train(**options, writers=[recorder], resume_from=load_case("a2c", tmp_path))

    iteration_steps = [step for step, key, _ in recorder.rows if key == "time/iterations"]
    assert resumed.last_digest == whole.last_digest
    assert recorder.curves == expected.curves
    assert iteration_steps == [500, 1000, 1500]


@pytest.mark.train
def test_a_training_that_is_killed_during_selection_selects_the_same_checkpoint(
    tmp_path: Path,
) -> None:
    case = "ppo, several environments"
    whole, expected = train_case(case)
    writer = SnapshotWriter(tmp_path)
    train_case(case, snapshot_writer=writer)
    writer.wait()

    state = load_case(case, tmp_path)
    resumed, recorder = train_case(case, resume_from=state)

    assert state.is_learned
    assert (resumed.last_digest, resumed.best_digest) == (whole.last_digest, whole.best_digest)
    assert [checkpoint.returns for checkpoint in resumed.checkpoints] == [
        checkpoint.returns for checkpoint in whole.checkpoints
    ]
    assert recorder.rows == []
    assert expected.rows


@pytest.mark.train
def test_snapshots_do_not_change_the_training(tmp_path: Path) -> None:
    plain, expected = train_case("sac")

    result, recorder = train_case("sac", snapshot_writer=SnapshotWriter(tmp_path, every=1))

    assert (result.last_digest, recorder.curves) == (plain.last_digest, expected.curves)


class Unpicklable(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Environment with an attribute that cannot be pickled."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._handle = (number for number in range(3))


class PickleError(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Environment that raises its own error when it is pickled."""

    def __getstate__(self) -> dict[str, Any]:
        raise KeyError("renderer")


class PickleOSError(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Environment that raises an OSError when it is pickled, which is no error of the disk."""

    def __getstate__(self) -> dict[str, Any]:
        raise ConnectionRefusedError("simulator")


@pytest.mark.train
@pytest.mark.parametrize(
    ("env_id", "algo", "hyperparams"),
    [
        ("CartPole-v1", "dqn", OFF_POLICY),
        ("CartPole-v1", "ppo", ON_POLICY | {"n_envs": 2, "normalize": True}),
        (PICTURE, "dqn", OFF_POLICY),
        (PICTURE, "ppo", ON_POLICY | NORMALIZED_REWARDS | {"n_envs": 2, "n_epochs": 1}),
    ],
)
def test_environments_that_cannot_be_pickled_start_new_episodes(
    env_id: str,
    algo: str,
    hyperparams: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    env_spec_json = env_spec.compose_spec(
        env_id, kwargs={"max_episode_steps": 10}, wrappers=[f"{__name__}:Unpicklable"]
    )
    options: dict[str, Any] = {"timesteps": TIMESTEPS, "hyperparams": hyperparams}
    writer = SnapshotWriter(tmp_path, every=10**9)
    with pytest.raises(Interrupted, match="SIGTERM"):
        loop.train(env_spec_json, algo, **options, snapshot_writer=writer, stop=StopAtRollout(3))
    writer.wait()
    path = next(snapshot_writer.list_valid_snapshots(tmp_path))
    header = snapshot_header.read_header(path)

    state = snapshot.load_snapshot(path, snapshot.rebuild_envs(env_spec_json, header, seed=1))
    vec_normalize = state.model.get_vec_normalize_env()
    count = vec_normalize.ret_rms.count if isinstance(vec_normalize, VecNormalize) else None
    resumed = loop.train(env_spec_json, algo, **options, resume_from=state)

    name = env_id.rpartition(":")[2]
    reason = f"environment {name} cannot be pickled (TypeError: cannot pickle 'generator' object)"
    assert header.inexact is not None
    assert reason in header.inexact
    assert caplog.text.count("is not exact") == 1
    assert max(checkpoint.step for checkpoint in resumed.checkpoints) >= TIMESTEPS
    assert count is None or count > 64


@pytest.mark.parametrize(
    ("wrapper", "error"),
    [
        ("PickleError", "KeyError: 'renderer'"),
        ("PickleOSError", "ConnectionRefusedError: simulator"),
    ],
)
def test_training_continues_if_pickling_an_environment_raises_any_error(
    wrapper: str, error: str, tmp_path: Path
) -> None:
    env_spec_json = env_spec.compose_spec("CartPole-v1", wrappers=[f"{__name__}:{wrapper}"])
    writer = SnapshotWriter(tmp_path, every=1)

    loop.train(env_spec_json, "ppo", timesteps=64, hyperparams=ON_POLICY, snapshot_writer=writer)

    reasons = [
        snapshot_header.read_header(path).inexact
        for path in snapshot_writer.list_valid_snapshots(tmp_path)
    ]
    assert reasons == [f"environment CartPole-v1 cannot be pickled ({error})"] * 2


def test_new_environments_with_other_wrappers_are_rejected(tmp_path: Path) -> None:
    env_spec_json = env_spec.compose_spec(PICTURE, wrappers=[f"{__name__}:Unpicklable"])
    writer = SnapshotWriter(tmp_path, every=10**9)
    with pytest.raises(Interrupted, match="SIGTERM"):
        loop.train(
            env_spec_json,
            "dqn",
            timesteps=TIMESTEPS,
            hyperparams=OFF_POLICY,
            snapshot_writer=writer,
            stop=StopAtRollout(1),
        )
    writer.wait()
    path = next(snapshot_writer.list_valid_snapshots(tmp_path))

    message = "has the VecEnv VecTransposeImage at position 0 .* but the new VecEnvs are: {}"
    with pytest.raises(MlflowException, match=message.format("DummyVecEnv")):
        snapshot.load_snapshot(path, builder.build_vec_env(env_spec_json, {}))
    with pytest.raises(MlflowException, match=message.format("none")):
        snapshot.load_snapshot(path)


def test_the_state_of_an_ezpickle_environment_is_restored(tmp_path: Path) -> None:
    """EzPickle itself pickles only the arguments of the constructor."""
    env_spec_json = env_spec.compose_spec("tests.environments:Remembering-v0")
    options: dict[str, Any] = {"timesteps": 128, "hyperparams": ON_POLICY}
    whole = loop.train(env_spec_json, "ppo", **options)
    writer = SnapshotWriter(tmp_path, every=10**9)
    with pytest.raises(Interrupted, match="SIGTERM"):
        loop.train(env_spec_json, "ppo", **options, snapshot_writer=writer, stop=StopAtRollout(3))
    writer.wait()

    state = snapshot.load_snapshot(next(snapshot_writer.list_valid_snapshots(tmp_path)))
    resumed = loop.train(env_spec_json, "ppo", timesteps=128, resume_from=state)

    assert resumed.last_digest == whole.last_digest


class StepCounter(BaseCallback):
    """Callback that counts the calls of ``on_step``."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def _on_step(self) -> bool:
        self.steps += 1
        return True


def test_the_attributes_of_callbacks_are_restored(tmp_path: Path) -> None:
    case = "ppo, several environments"
    interrupt_case(case, 3, tmp_path, callbacks=[StepCounter()])
    counter = StepCounter()

    train_case(case, callbacks=[counter], resume_from=load_case(case, tmp_path))

    assert counter.steps == 320 // 2  # five rollouts of 32 steps in two environments


def test_a_file_that_is_not_a_snapshot_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("something else\n")

    with pytest.raises(MlflowException, match="file is not a training snapshot"):
        snapshot.load_snapshot(tmp_path / "file")


def test_a_snapshot_of_an_older_version_is_rejected_in_one_line(tmp_path: Path) -> None:
    header = {"step": 32, "learned": False, "context": {}, "n_envs": 1, "schema": 3}
    path = tmp_path / "0.snapshot"
    path.write_bytes(FIRST_LINE + json.dumps(header).encode() + b"\nan old pickle")

    with pytest.raises(MlflowException, match="has schema 3, but this version") as caught:
        snapshot.load_snapshot(path)

    assert SNAPSHOT_SCHEMA == 4
    assert "Resume with the version that wrote it." in caught.value.message
    assert "\n" not in caught.value.message
