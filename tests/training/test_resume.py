from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from stable_baselines3 import PPO

from mlflow_sb3.envs import env_spec
from mlflow_sb3.runs import state_dir
from mlflow_sb3.runs.signals import Interrupted
from mlflow_sb3.tracking import atomic_file, snapshot_uploader
from mlflow_sb3.tracking.journal import Journal
from mlflow_sb3.tracking.run_logger import MetricPoint, RunLogger
from mlflow_sb3.tracking.snapshot_uploader import SLOTS, SNAPSHOT_DIR
from mlflow_sb3.training import provenance, resume
from mlflow_sb3.training.config import TrainingConfig
from mlflow_sb3.training.loop import _Logger
from mlflow_sb3.training.snapshot_writer import SnapshotWriter

CARTPOLE = env_spec.compose_spec("CartPole-v1")
RECIPE = TrainingConfig("CartPole-v1", "ppo", 64, 0, {}, {}, [], "", "", 1, "none", CARTPOLE, {})
POINTS: list[MetricPoint] = [
    ("a", 0.0, 10, 1),
    ("a", math.nan, 11, 2),
    ("a", math.inf, 12, 3),
    ("a", 4.0, 13, 4),
]
LATER: MetricPoint = ("a", 5.0, 14, 5)


def interrupted(facts: dict[str, Any], points: list[MetricPoint] | None, run_id: str) -> None:
    """What a training leaves that was interrupted behind its last snapshot, if there is one."""
    with RunLogger(run_id, state_dir.run_dir(run_id)) as told:
        if points is not None:
            model = PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, seed=0, device="cpu")
            model.set_logger(_Logger([]))
            model.learn(32)
            told.points(points)
            context = {"asked": {}, "recipe": RECIPE.to_json(), "facts": facts}
            kept = SnapshotWriter(
                state_dir.run_dir(run_id) / SNAPSHOT_DIR,
                context=context,
                more=told.state,
                on_published=told.snapshot,
            )
            kept.take(model, [])
            kept.wait()
            told.points([LATER])
        raise Interrupted(15)


def leave(facts: dict[str, Any], points: list[MetricPoint] | None = POINTS) -> str:
    run_id = str(
        MlflowClient().create_run(mlflow.get_experiment_by_name("test").experiment_id).info.run_id
    )  # type: ignore[union-attr]
    with pytest.raises(Interrupted, match="SIGTERM"):
        interrupted(facts, points, run_id)
    return run_id


def carry(origin_id: str, facts: dict[str, Any], folder: Path) -> str:
    with (
        mlflow.start_run() as run,
        resume.find_snapshot(origin_id) as origin,
        RunLogger(run.info.run_id, folder) as told,
    ):
        origin.carry(told, facts)
    return str(run.info.run_id)


@pytest.mark.usefixtures("store")
def test_curves_up_to_the_snapshot_are_carried_each_point_once_numbers_or_not(
    tmp_path: Path,
) -> None:
    facts = provenance.collect_facts(1)

    run_id = carry(leave(facts), facts, tmp_path / "run")

    history = MlflowClient().get_metric_history(run_id, "a")
    assert sorted(point.step for point in history) == [1, 2, 3, 4]
    assert math.isnan(next(point.value for point in history if point.step == 2))
    assert provenance.INEXACT_TAG not in mlflow.get_run(run_id).data.tags


@pytest.mark.usefixtures("store")
def test_another_machine_or_package_is_told(tmp_path: Path) -> None:
    facts = provenance.collect_facts(1)
    before = facts | {"cpu": "another", "packages": facts["packages"] | {"torch": "1.0"}}

    run_id = carry(leave(before), facts, tmp_path / "run")

    told = mlflow.get_run(run_id).data.tags[provenance.INEXACT_TAG]
    assert "package torch was 1.0, and is 2." in told
    assert "CPU was another, and is" in told


@pytest.mark.usefixtures("store")
def test_a_run_without_a_snapshot_of_its_own_goes_on_from_its_origin() -> None:
    first, second = leave(provenance.collect_facts(1)), leave(provenance.collect_facts(1), None)
    MlflowClient().set_tag(second, resume.RESUMED_FROM_TAG, first)

    with resume.find_snapshot(second) as origin:
        assert (origin.run_id, origin.header.step) == (first, 32)


@pytest.mark.usefixtures("store")
def test_a_snapshot_is_not_unpickled_where_that_is_forbidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_id = leave(provenance.collect_facts(1))
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

    with (
        resume.find_snapshot(run_id) as origin,
        pytest.raises(mlflow.MlflowException, match=f"snapshot of run {run_id} would unpickle"),
    ):
        origin.load()


@pytest.mark.usefixtures("store")
def test_an_uploaded_snapshot_that_was_changed_is_not_taken(tmp_path: Path) -> None:
    run_id = leave(provenance.collect_facts(1))
    for path in (state_dir.run_dir(run_id) / SNAPSHOT_DIR).glob("*.snapshot"):
        content = path.read_bytes()
        path.unlink()
        (tmp_path / path.name).write_bytes(content[:-40] + b"\x00" * 8 + content[-32:])
        MlflowClient().log_artifact(run_id, str(tmp_path / path.name), SNAPSHOT_DIR)

    with (
        pytest.raises(mlflow.MlflowException, match="left no whole snapshot"),
        resume.find_snapshot(run_id),
    ):
        pass


@pytest.mark.usefixtures("store")
def test_who_cannot_download_the_only_snapshot_is_told_to_call_again(tmp_path: Path) -> None:
    run_id = leave(provenance.collect_facts(1))
    shutil.rmtree(state_dir.run_dir(run_id))
    away = (tmp_path / "artifacts").rename(tmp_path / "away")

    with (
        pytest.raises(mlflow.MlflowException, match=r"cannot be downloaded: .*; call again when"),
        resume.find_snapshot(run_id),
    ):
        pass
    away.rename(tmp_path / "artifacts")

    with resume.find_snapshot(run_id) as origin:
        assert origin.header.step == 32


@pytest.mark.usefixtures("store")
def test_of_two_snapshots_of_which_the_newer_was_cut_short_anywhere_the_older_is_taken(
    tmp_path: Path,
) -> None:
    run_id = leave(provenance.collect_facts(1))
    snapshot_uploader.remove_snapshots(MlflowClient(), run_id)
    folder = state_dir.run_dir(run_id) / SNAPSHOT_DIR
    content = (folder / SLOTS[0]).read_bytes()
    newer = tmp_path / "newer"
    newer.write_bytes(content[:-32].replace(b'"step": 32', b'"step": 64', 1))
    atomic_file.seal(newer)
    whole = newer.read_bytes()
    lengths = [
        *range(0, len(whole), len(whole) // 20),
        whole.index(b"\n") + 1,
        whole.index(b"}\n") + 2,
        len(whole) - 1,
    ]

    def step() -> int:
        with resume.find_snapshot(run_id) as origin:
            return origin.header.step

    (folder / SLOTS[1]).write_bytes(whole)
    assert step() == 64
    for length in lengths:
        (folder / SLOTS[1]).write_bytes(whole[:length])
        assert step() == 32, length
    (folder / SLOTS[0]).unlink()
    assert not resume.has_snapshot(mlflow.get_run(run_id))


@pytest.mark.usefixtures("store")
def test_a_run_whose_server_has_another_address_now_is_gone_on_with(store: str) -> None:
    run_id = leave(provenance.collect_facts(1))
    left = Journal.reopen(state_dir.run_dir(run_id))
    left.append(tags={"late": "yes"})
    left.close()
    about = state_dir.run_dir(run_id) / "run.json"
    about.write_text(about.read_text().replace(store, "http://127.0.0.1:9"))

    with resume.find_snapshot(run_id) as origin:
        assert origin.header.step == 32

    assert mlflow.get_run(run_id).data.tags["late"] == "yes"


def test_the_command_that_goes_on_names_a_folder_that_is_not_the_usual_one(tmp_path: Path) -> None:
    assert (
        resume.resume_command("id", state_dir.state_dir()) == "mlflow run . -e train -P resume=id"
    )
    assert (
        resume.resume_command("id", tmp_path)
        == f"mlflow run . -e train -P resume=id -P state_folder={tmp_path}"
    )
    assert resume.resume_command("id", Path("/a b")).endswith(" -P state_folder='/a b'")


@pytest.mark.usefixtures("store")
def test_what_was_gone_on_from_leaves_its_snapshots_neither_here_nor_among_its_artifacts() -> None:
    first, second = leave(provenance.collect_facts(1)), leave(provenance.collect_facts(1))
    MlflowClient().set_tag(second, resume.RESUMED_FROM_TAG, first)
    assert MlflowClient().list_artifacts(first, SNAPSHOT_DIR)

    resume.delete_snapshots(second)

    for run_id in (first, second):
        assert MlflowClient().list_artifacts(run_id, SNAPSHOT_DIR) == []
        assert not state_dir.run_dir(run_id).exists()
        assert not resume.has_snapshot(mlflow.get_run(run_id))


@pytest.mark.usefixtures("store")
def test_an_origin_that_the_server_does_not_know_any_more_is_no_error(tmp_path: Path) -> None:
    folder = tmp_path / "home" / ("0" * 32)
    folder.mkdir(parents=True)

    resume.delete_snapshots(folder.name, str(folder.parent))

    assert not folder.exists()


@pytest.mark.usefixtures("store")
def test_a_training_that_was_done_but_not_delivered_is_delivered_and_not_resumed() -> None:
    run_id = leave(provenance.collect_facts(1))
    MlflowClient().set_terminated(run_id, "KILLED")
    left = Journal.reopen(state_dir.run_dir(run_id))
    left.append(status="FINISHED", time=1)
    left.close()

    with (
        pytest.raises(mlflow.MlflowException, match="finished, and there is nothing to resume"),
        resume.find_snapshot(run_id),
    ):
        pass

    assert mlflow.get_run(run_id).info.status == "FINISHED"
