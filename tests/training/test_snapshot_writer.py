from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3 import PPO

from mlflow_sb3.tracking import atomic_file, snapshot_header
from mlflow_sb3.tracking.snapshot_uploader import SLOTS
from mlflow_sb3.training import loop, snapshot_writer
from mlflow_sb3.training.loop import _Logger
from mlflow_sb3.training.snapshot_writer import SnapshotWriter


@pytest.fixture
def model() -> PPO:
    """An algorithm in the middle of a training."""
    learning = PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, seed=0, device="cpu")
    learning.set_logger(_Logger([]))
    return learning.learn(32)


def steps(folder: Path) -> list[int]:
    return [
        snapshot_header.read_header(path).step for path in snapshot_writer.valid_snapshots(folder)
    ]


def take(kept: SnapshotWriter, model: PPO, step: int) -> None:
    model.num_timesteps = step
    kept.take(model, [])
    kept.wait()


def test_the_last_two_are_kept_the_newest_first(model: PPO, tmp_path: Path) -> None:
    kept = SnapshotWriter(tmp_path)
    for step in (10, 20, 30):
        take(kept, model, step)

    assert steps(tmp_path) == [30, 20]
    assert {path.name for path in tmp_path.iterdir()} == set(SLOTS)


def test_a_shelf_that_is_opened_again_replaces_the_older_one(model: PPO, tmp_path: Path) -> None:
    for step in (10, 20, 30):
        take(SnapshotWriter(tmp_path), model, step)

    assert steps(tmp_path) == [30, 20]


def test_a_snapshot_that_was_cut_short_at_any_byte_is_never_loaded_and_the_one_before_it_is(
    model: PPO, tmp_path: Path
) -> None:
    kept = SnapshotWriter(tmp_path)
    take(kept, model, 10)
    take(kept, model, 20)
    newest = next(snapshot_writer.valid_snapshots(tmp_path))
    content = newest.read_bytes()
    lengths = {*range(300), *range(0, len(content), 997), *range(len(content) - 300, len(content))}

    for length in sorted(lengths):
        newest.write_bytes(content[:length])
        assert steps(tmp_path) == [10], length
    newest.write_bytes(content)
    assert steps(tmp_path) == [20, 10]


def test_steps_between_snapshots_can_be_given(model: PPO, tmp_path: Path) -> None:
    kept = SnapshotWriter(tmp_path, every=100)
    kept.begin(0)

    due = [kept.is_due(step) for step in (0, 99, 100)]
    take(kept, model, 130)

    assert due == [False, False, True]
    assert [kept.is_due(step) for step in (229, 230)] == [False, True]


def test_snapshots_are_as_far_apart_as_their_share_of_the_time_allows(
    model: PPO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    kept = SnapshotWriter(tmp_path)
    kept.begin(0)
    assert not kept.is_due(0)

    now += snapshot_writer.SHORTEST
    assert kept.is_due(0)
    take(kept, model, 10)
    assert not kept.is_due(10)
    now += snapshot_writer.SHORTEST

    assert kept.is_due(10)


@pytest.mark.parametrize("written", [True, False])
def test_a_slow_snapshot_makes_the_next_one_wait_written_or_not(
    model: PPO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, written: bool
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)

    def slow() -> dict[str, Any]:
        nonlocal now
        now += 3.0
        return {}

    if not written:
        (tmp_path / "folder").write_text("no folder")
    kept = SnapshotWriter(tmp_path / "folder", more=slow)
    take(kept, model, 10)
    now += 3.0 / snapshot_writer.SHARE - 1

    assert not kept.is_due(10)
    now += 1
    assert kept.is_due(10)
    assert (kept.taken, kept.seconds) == (int(written), 3.0)


def test_a_folder_that_cannot_be_written_is_a_warning_once(
    model: PPO, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    kept = SnapshotWriter(tmp_path / "file")

    take(kept, model, 10)
    take(kept, model, 20)

    assert caplog.text.count("no snapshot could be written to") == 1
    assert kept.taken == 0


def test_a_state_that_cannot_be_pickled_is_a_warning_and_no_snapshot(
    model: PPO, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model.handle = (number for number in range(3))  # type: ignore[attr-defined]
    kept = SnapshotWriter(tmp_path)

    take(kept, model, 10)
    take(kept, model, 20)

    reason = "TypeError: cannot pickle 'generator' object"
    assert (
        caplog.text.count(
            f"this training cannot be resumed: its state cannot be pickled ({reason})"
        )
        == 1
    )
    assert list(tmp_path.iterdir()) == []


def test_whoever_uploads_is_told_of_every_whole_snapshot(model: PPO, tmp_path: Path) -> None:
    told: list[Path] = []
    kept = SnapshotWriter(tmp_path, on_published=told.append)
    take(kept, model, 10)
    take(kept, model, 20)

    assert [path.name for path in told] == list(SLOTS)
    assert all(atomic_file.is_sealed(path) for path in told)


def test_snapshots_of_a_training_are_counted_and_timed(cartpole: str, tmp_path: Path) -> None:
    kept, start = SnapshotWriter(tmp_path, every=32), time.monotonic()

    loop.train(
        cartpole, "ppo", timesteps=128, hyperparams={"n_steps": 32, "batch_size": 32}, shelf=kept
    )

    assert kept.taken == 4  # at 32, 64 and 96 steps, and in the end
    assert 0 < kept.seconds < time.monotonic() - start
    assert os.listdir(tmp_path)  # noqa: PTH208
