from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3 import PPO

from mlflow_sb3.tracking import atomic_file, snapshot_header
from mlflow_sb3.tracking.snapshot_uploader import SNAPSHOT_NAMES
from mlflow_sb3.training import loop, snapshot_writer
from mlflow_sb3.training.learn_state import IterationLogger
from mlflow_sb3.training.snapshot_writer import SnapshotWriter


@pytest.fixture
def model() -> PPO:
    """PPO after 32 steps, with the logger that snapshots need."""
    algorithm = PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, seed=0, device="cpu")
    algorithm.set_logger(IterationLogger([]))
    return algorithm.learn(32)


def read_steps(folder: Path) -> list[int]:
    """Return the steps of the valid snapshots, the newest first."""
    paths = snapshot_writer.list_valid_snapshots(folder)
    return [snapshot_header.read_header(path).step for path in paths]


def take_snapshot(writer: SnapshotWriter, model: PPO, step: int) -> None:
    model.num_timesteps = step
    writer.take(model, [])
    writer.wait()


def test_the_last_two_snapshots_are_kept(model: PPO, tmp_path: Path) -> None:
    writer = SnapshotWriter(tmp_path)
    for step in (10, 20, 30):
        take_snapshot(writer, model, step)

    assert read_steps(tmp_path) == [30, 20]
    assert {path.name for path in tmp_path.iterdir()} == set(SNAPSHOT_NAMES)


def test_a_new_writer_replaces_the_older_snapshot(model: PPO, tmp_path: Path) -> None:
    for step in (10, 20, 30):
        take_snapshot(SnapshotWriter(tmp_path), model, step)

    assert read_steps(tmp_path) == [30, 20]


def test_the_previous_snapshot_is_valid_if_the_last_is_truncated(
    model: PPO, tmp_path: Path
) -> None:
    writer = SnapshotWriter(tmp_path)
    take_snapshot(writer, model, 10)
    take_snapshot(writer, model, 20)
    newest = next(snapshot_writer.list_valid_snapshots(tmp_path))
    content = newest.read_bytes()
    lengths = {*range(300), *range(0, len(content), 997), *range(len(content) - 300, len(content))}

    for length in sorted(lengths):
        newest.write_bytes(content[:length])
        assert read_steps(tmp_path) == [10], length
    newest.write_bytes(content)
    assert read_steps(tmp_path) == [20, 10]


def test_snapshots_are_due_after_the_set_number_of_steps(model: PPO, tmp_path: Path) -> None:
    writer = SnapshotWriter(tmp_path, every=100)
    writer.start(0)

    is_due = [writer.is_due(step) for step in (0, 99, 100)]
    take_snapshot(writer, model, 130)

    assert is_due == [False, False, True]
    assert [writer.is_due(step) for step in (229, 230)] == [False, True]


def test_snapshots_are_due_after_the_minimum_interval(
    model: PPO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    writer = SnapshotWriter(tmp_path)
    writer.start(0)
    assert not writer.is_due(0)

    now += snapshot_writer.MIN_INTERVAL
    assert writer.is_due(0)
    take_snapshot(writer, model, 10)
    assert not writer.is_due(10)
    now += snapshot_writer.MIN_INTERVAL

    assert writer.is_due(10)


@pytest.mark.parametrize("is_writable", [True, False])
def test_a_slow_snapshot_delays_the_next_one_even_if_it_failed(
    model: PPO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_writable: bool
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)

    def take_three_seconds() -> dict[str, Any]:
        nonlocal now
        now += 3.0
        return {}

    if not is_writable:
        (tmp_path / "folder").write_text("a file in place of the folder")
    writer = SnapshotWriter(tmp_path / "folder", get_extra=take_three_seconds)
    take_snapshot(writer, model, 10)
    now += 3.0 / snapshot_writer.MAX_TIME_SHARE - 1

    assert not writer.is_due(10)
    now += 1
    assert writer.is_due(10)
    assert (writer.count, writer.seconds) == (int(is_writable), 3.0)


def test_a_folder_that_cannot_be_written_is_one_warning(
    model: PPO, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("a file in place of the folder")
    writer = SnapshotWriter(tmp_path / "file")

    take_snapshot(writer, model, 10)
    take_snapshot(writer, model, 20)

    assert caplog.text.count("Could not write a snapshot to") == 1
    assert writer.count == 0


def test_a_state_that_cannot_be_pickled_is_one_warning_and_no_snapshot(
    model: PPO, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model.handle = (number for number in range(3))  # type: ignore[attr-defined]
    writer = SnapshotWriter(tmp_path)

    take_snapshot(writer, model, 10)
    take_snapshot(writer, model, 20)

    reason = "TypeError: cannot pickle 'generator' object"
    message = f"The state of this training cannot be pickled ({reason})"
    assert caplog.text.count(message) == 1
    assert list(tmp_path.iterdir()) == []


def test_on_written_is_called_with_each_complete_snapshot(model: PPO, tmp_path: Path) -> None:
    paths: list[Path] = []
    writer = SnapshotWriter(tmp_path, on_written=paths.append)
    take_snapshot(writer, model, 10)
    take_snapshot(writer, model, 20)

    assert [path.name for path in paths] == list(SNAPSHOT_NAMES)
    assert all(atomic_file.has_valid_digest(path) for path in paths)


def test_a_writer_counts_and_times_its_snapshots(cartpole: str, tmp_path: Path) -> None:
    writer, start = SnapshotWriter(tmp_path, every=32), time.monotonic()

    loop.train(
        cartpole,
        "ppo",
        timesteps=128,
        hyperparams={"n_steps": 32, "batch_size": 32},
        snapshot_writer=writer,
    )

    assert writer.count == 4  # at 32, 64 and 96 steps, and at the end
    assert 0 < writer.seconds < time.monotonic() - start
    assert list(tmp_path.iterdir())
