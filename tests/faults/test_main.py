"""Entry points that are killed or stopped, and resume with the same result."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from mlflow.entities import Run

from mlflow_sb3.runs.previous_attempt import CONTINUES_TAG
from mlflow_sb3.runs.signals import INTERRUPTED_TAG
from mlflow_sb3.training.provenance import POLICY_DIGEST_TAG
from mlflow_sb3.training.resume import RESUMED_FROM_TAG
from mlflow_sb3.training.resume_point import RESUMED_AT_TAG
from tests import ROOT, processes
from tests.faults.resume import Machine, list_differing_keys
from tests.processes import (
    PROCESS_TIMEOUT,
    has_ended,
    list_children,
    read_command_line,
    wait_until,
)
from tests.project.conftest import Place

pytestmark = [pytest.mark.process, pytest.mark.train]

PARAMETERS = (
    "algo=ppo",
    "timesteps=12000",
    "seed=5",
    "eval_budget=1e6",
    "race_episodes=76",
    'hyperparams={"gamma":0.97}',
    'env_kwargs={"max_episode_steps":100}',
)
"""A training that lasts long enough to be killed, with episodes that are evaluated quickly."""
STEPS = ("train", "log_model", "promote", "evaluate")


def start(place: Place, entry_point: str, *parameters: str) -> subprocess.Popen[str]:
    """Start ``mlflow run`` in its own process group."""
    options = [part for parameter in parameters for part in ("-P", parameter)]
    command = ["mlflow", "run", str(ROOT), "-e", entry_point, "--env-manager", "local", *options]
    with (place.folder / "log.txt").open("a") as log:
        return subprocess.Popen(
            command,
            cwd=place.folder,
            env=place.environment(),
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )


def search_runs(place: Place, entry_point: str) -> list[Run]:
    """Return the runs of an entry point, the newest first."""
    return place.runs(f"tags.mlflow.project.entryPoint = '{entry_point}'")


def find_snapshots() -> set[Path]:
    return processes.find_snapshots(Path(os.environ["XDG_STATE_HOME"]))


@pytest.fixture
def reference(tmp_path: Path) -> tuple[Machine, Run]:
    """An undisturbed training with the same parameters."""
    machine = Machine(tmp_path)
    options: list[str] = []
    for parameter in PARAMETERS:
        name, _, value = parameter.partition("=")
        options += [f"--{name.replace('_', '-')}", value]
    return machine, machine.train(*options)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Working folder with a tracking store."""
    folder = tmp_path / "place"
    folder.mkdir()
    new_place = Place(folder)
    new_place.client.search_experiments()  # creates the tables
    return new_place


def find_processes(module: str, pid: int) -> list[int]:
    """Return the pids of a process and its descendants that run a Python module."""
    if read_command_line(pid)[1:3] == ["-m", module]:
        return [pid]
    return [found for child in list_children(pid) for found in find_processes(module, child)]


def wait_for_interrupted_training(place: Place) -> Run:
    """Wait until the last training has ended after a signal, and return its run."""

    def is_interrupted() -> bool:
        run = search_runs(place, "train")[0]
        return INTERRUPTED_TAG in run.data.tags and run.info.status != "RUNNING"

    wait_until(is_interrupted)
    return search_runs(place, "train")[0]


def test_a_stopped_mlflow_run_takes_a_snapshot_and_resumes_to_the_same_agent(
    place: Place, reference: tuple[Machine, Run]
) -> None:
    machine, reference_run = reference
    project = start(place, "train", *PARAMETERS)
    wait_until(find_snapshots)

    project.terminate()
    project.wait(PROCESS_TIMEOUT)
    interrupted = wait_for_interrupted_training(place)
    done = place.mlflow_run("train", f"resume={interrupted.info.run_id}")

    assert interrupted.data.tags[INTERRUPTED_TAG] == "SIGTERM"
    assert interrupted.info.status == "KILLED"
    assert done.returncode == 0, done.stderr
    run = search_runs(place, "train")[0]
    history = Machine(place.folder).read_history(run)
    assert run.data.tags[RESUMED_FROM_TAG] == interrupted.info.run_id
    assert run.data.tags[POLICY_DIGEST_TAG] == reference_run.data.tags[POLICY_DIGEST_TAG]
    assert int(run.data.tags[RESUMED_AT_TAG]) > 0
    assert list_differing_keys(machine.read_history(reference_run), history) == []


def test_ctrl_c_keeps_the_snapshot_and_tags_the_run(place: Place) -> None:
    project = start(place, "train", *PARAMETERS)
    wait_until(find_snapshots)

    os.killpg(project.pid, signal.SIGINT)
    project.wait(PROCESS_TIMEOUT)
    interrupted = wait_for_interrupted_training(place)

    assert interrupted.data.tags[INTERRUPTED_TAG] == "SIGINT"
    assert interrupted.info.status == "FAILED"  # MLflow 3.17 sets it, see signals.INTERRUPTED_TAG
    assert find_snapshots()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_step_exits_with_the_code_of_the_signal(
    tmp_path: Path, number: int, code: int
) -> None:
    machine = Machine(tmp_path)
    process = machine.start_and_wait_for_snapshot("--algo", "ppo", "--timesteps", "100000")

    process.send_signal(number)

    assert process.wait(PROCESS_TIMEOUT) == code
    assert machine.last_run().info.status == "KILLED"
    log = (tmp_path / "log.txt").read_text()
    assert f"Error: interrupted by {signal.Signals(number).name}." in log
    assert f"resume={machine.last_run().info.run_id}" in log


def kill_main_in_step(place: Place, step: str) -> None:
    """Start main, and kill all of its processes while it runs a step."""
    earlier = [run.info.run_id for run in search_runs(place, step)]
    project = start(place, "main", *PARAMETERS)
    wait_until(
        lambda: (
            [run for run in search_runs(place, step) if run.info.run_id not in earlier]
            and (step != "train" or find_snapshots())
        )
    )
    time.sleep({"log_model": 5.0, "promote": 2.0}.get(step, 0.5))
    os.killpg(project.pid, signal.SIGKILL)
    project.wait()


def test_a_new_main_continues_in_the_step_in_which_main_was_killed(place: Place) -> None:
    """Kill main in each of its steps, one after the other. Each main continues the last one."""
    for step in STEPS:
        kill_main_in_step(place, step)

    done = place.mlflow_run("main", *PARAMETERS)

    assert done.returncode == 0, done.stderr
    parent, *killed = search_runs(place, "main")
    assert [run.info.status for run in (parent, *killed)] == ["FINISHED", *["FAILED"] * 4]
    assert [run.data.tags.get(CONTINUES_TAG) for run in (parent, *killed)] == [
        *(run.info.run_id for run in killed),
        None,
    ]
    for run in killed:
        assert place.runs(f"tags.mlflow.parentRunId = '{run.info.run_id}'") == []
    for name in STEPS:
        (finished,) = [run for run in search_runs(place, name) if run.info.status == "FINISHED"]
        assert finished.data.tags["mlflow.parentRunId"] == parent.info.run_id
        reuse = f"== {name}: reuses run {finished.info.run_id}, which finished"
        assert (reuse in done.stdout) == (name != "evaluate")
    resumed, first = search_runs(place, "train")
    assert resumed.data.tags[RESUMED_FROM_TAG] == first.info.run_id
    versions = place.client.search_model_versions("name = 'cartpole-v1-ppo'")
    champion = place.client.get_model_version_by_alias("cartpole-v1-ppo", "champion")
    assert [int(version.version) for version in versions] == [1]
    assert int(champion.version) == 1
    assert {run.info.status for run in place.runs()} == {"FINISHED", "FAILED"}


def test_train_stops_if_main_is_killed_and_the_next_main_resumes_it(place: Place) -> None:
    parameters = ["timesteps=30000" if "timesteps" in text else text for text in PARAMETERS]
    project = start(place, "main", *parameters)
    wait_until(find_snapshots)
    (main_pid,) = find_processes("steps.main", project.pid)
    (train_pid,) = find_processes("steps.train", project.pid)
    train_pids = [train_pid, *list_children(train_pid)]

    os.kill(main_pid, signal.SIGKILL)
    project.wait(PROCESS_TIMEOUT)
    interrupted = wait_for_interrupted_training(place)
    wait_until(lambda: all(map(has_ended, train_pids)))
    done = place.mlflow_run("main", *parameters)

    assert (interrupted.info.status, interrupted.data.tags[INTERRUPTED_TAG]) == (
        "KILLED",
        "SIGTERM",
    )
    assert done.returncode == 0, done.stderr
    assert f"== train: resumes run {interrupted.info.run_id}" in done.stdout
    resumed, first = search_runs(place, "train")
    versions = place.client.search_model_versions("name = 'cartpole-v1-ppo'")
    assert first.info.run_id == interrupted.info.run_id
    assert resumed.info.status == "FINISHED"
    assert resumed.data.tags[RESUMED_FROM_TAG] == interrupted.info.run_id
    assert int(resumed.data.tags[RESUMED_AT_TAG]) > 0
    assert [run.info.status for run in search_runs(place, "main")] == ["FINISHED", "FAILED"]
    assert [int(version.version) for version in versions] == [1]


def test_a_stopped_main_stops_its_step_and_can_be_resumed_or_started_afresh(
    place: Place,
) -> None:
    project = start(place, "main", *PARAMETERS)
    wait_until(find_snapshots)

    project.terminate()
    project.wait(PROCESS_TIMEOUT)
    wait_until(lambda: all(run.info.status == "KILLED" for run in place.runs()))
    resumed = place.mlflow_run("main", *PARAMETERS)
    fresh = place.mlflow_run("main", *PARAMETERS, "fresh=true")

    assert "== train: resumes run" in resumed.stdout
    assert (resumed.returncode, fresh.returncode) == (0, 0)
    assert "resumes run" not in fresh.stdout
    assert "reuses run" not in fresh.stdout
    digests = {
        run.data.tags[POLICY_DIGEST_TAG]
        for run in search_runs(place, "train")
        if run.info.status == "FINISHED"
    }
    assert len(digests) == 1
