"""`mlflow run` that is killed or told to stop: what goes on afterwards ends as if nothing had happened, and nothing is done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from mlflow.entities import Run

from mlflow_sb3.runs.previous_attempt import CONTINUES
from mlflow_sb3.runs.signals import INTERRUPTED_TAG
from mlflow_sb3.training.provenance import POLICY_DIGEST_TAG
from mlflow_sb3.training.resume import AT, RESUMED_FROM_TAG
from tests import ROOT, processes
from tests.faults.resume import Machine, differing
from tests.processes import PATIENCE, children, command_line, is_over, until
from tests.project.conftest import Place

pytestmark = pytest.mark.process

RECIPE = ("algo=ppo", "timesteps=12000", "seed=5", 'hyperparams={"gamma":0.97}')
STEPS = ("train", "log_model", "promote", "evaluate")


def start(place: Place, entry_point: str, *parameters: str) -> subprocess.Popen[str]:
    given = [part for parameter in parameters for part in ("-P", parameter)]
    command = ["mlflow", "run", str(ROOT), "-e", entry_point, "--env-manager", "local", *given]
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


def runs(place: Place, entry_point: str) -> list[Run]:
    return place.runs(f"tags.mlflow.project.entryPoint = '{entry_point}'")


def snapshots() -> set[Path]:
    return processes.snapshots(Path(os.environ["XDG_STATE_HOME"]))


@pytest.fixture
def reference(tmp_path: Path) -> tuple[Machine, Run]:
    """The training that nobody disturbed."""
    machine = Machine(tmp_path)
    options = [
        part
        for parameter in RECIPE
        for part in (f"--{parameter.partition('=')[0]}", parameter.partition("=")[2])
    ]
    return machine, machine.train(*options)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "place").mkdir()
    found = Place(tmp_path / "place")
    found.client.search_experiments()
    return found


def calling(module: str, pid: int) -> list[int]:
    """The processes of Python that run a module: this one, or else those that it has started, at any remove."""
    if command_line(pid)[1:3] == ["-m", module]:
        return [pid]
    return [found for child in children(pid) for found in calling(module, child)]


def stopped(place: Place) -> Run:
    """The training that was told to stop, when it has."""
    until(
        lambda: (
            INTERRUPTED_TAG in runs(place, "train")[0].data.tags
            and runs(place, "train")[0].info.status != "RUNNING"
        )
    )
    return runs(place, "train")[0]


def test_mlflow_run_that_is_told_to_stop_makes_a_snapshot_and_resumes_to_the_same_agent(
    place: Place, reference: tuple[Machine, Run]
) -> None:
    machine, whole = reference
    project = start(place, "train", *RECIPE)
    until(snapshots)

    project.terminate()
    project.wait(PATIENCE)
    killed = stopped(place)
    resumed = place.mlflow_run("train", f"resume={killed.info.run_id}")

    assert killed.data.tags[INTERRUPTED_TAG] == "SIGTERM"
    assert killed.info.status == "KILLED"
    assert resumed.returncode == 0, resumed.stderr
    run = runs(place, "train")[0]
    assert run.data.tags[RESUMED_FROM_TAG] == killed.info.run_id
    assert run.data.tags[POLICY_DIGEST_TAG] == whole.data.tags[POLICY_DIGEST_TAG]
    assert int(run.data.tags["mlflow_sb3.resumed_at"]) > 0
    here = Machine(place.folder)
    assert differing(machine.history(whole), here.history(run)) == []


def test_mlflow_run_that_gets_ctrl_c_keeps_the_snapshot_and_says_what_ended_it(
    place: Place,
) -> None:
    project = start(place, "train", *RECIPE)
    until(snapshots)

    os.killpg(project.pid, signal.SIGINT)
    project.wait(PATIENCE)
    interrupted = stopped(place)

    assert interrupted.data.tags[INTERRUPTED_TAG] == "SIGINT"
    assert interrupted.info.status == "FAILED"  # MLflow 3.17 overwrites it, see interruption.TAG
    assert snapshots()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_step_that_is_told_to_stop_says_so_in_its_exit_code(
    tmp_path: Path, number: int, code: int
) -> None:
    machine = Machine(tmp_path)
    process = machine.start_and_wait("--algo", "ppo", "--timesteps", "100000")

    process.send_signal(number)

    assert process.wait(PATIENCE) == code
    assert machine.last().info.status == "KILLED"
    log = (tmp_path / "log.txt").read_text()
    assert f"Error: interrupted by {signal.Signals(number).name}." in log
    assert f"resume={machine.last().info.run_id}" in log


@pytest.mark.parametrize("step", STEPS)
def test_main_that_is_killed_in_a_step_goes_on_there_and_does_nothing_twice(
    place: Place, step: str
) -> None:
    project = start(place, "main", *RECIPE)
    until(lambda: runs(place, step) and (step != "train" or snapshots()))
    time.sleep({"log_model": 5.0, "promote": 2.0}.get(step, 0.5))
    os.killpg(project.pid, signal.SIGKILL)
    project.wait()
    before = {name: [run.info.run_id for run in runs(place, name)] for name in STEPS}

    again = place.mlflow_run("main", *RECIPE)

    assert again.returncode == 0, again.stderr
    parent, killed = runs(place, "main")
    children = place.runs(f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    finished = [run for run in children if run.info.status == "FINISHED"]
    assert (parent.info.status, killed.info.status) == ("FINISHED", "FAILED")
    assert parent.data.tags[CONTINUES] == killed.info.run_id
    assert sorted(run.data.tags["mlflow.project.entryPoint"] for run in finished) == sorted(STEPS)
    assert place.runs(f"tags.mlflow.parentRunId = '{killed.info.run_id}'") == []
    for name in STEPS[: STEPS.index(step)]:
        assert [run.info.run_id for run in runs(place, name)] == before[name]
        assert f"== {name}: run {before[name][0]} finished with the same parameters" in again.stdout
    versions = place.client.search_model_versions("name = 'cartpole-v1-ppo'")
    assert [int(version.version) for version in versions] == [1]
    assert int(place.client.get_model_version_by_alias("cartpole-v1-ppo", "champion").version) == 1
    assert {run.info.status for run in place.runs()} == {"FINISHED", "FAILED"}
    if step == "train":
        assert f"== train: resumes run {before['train'][0]}" in again.stdout


def test_a_train_step_whose_main_alone_is_killed_stops_by_itself_and_the_next_main_resumes_it(
    place: Place,
) -> None:
    long = (
        "timesteps=30000",
        *(parameter for parameter in RECIPE if not parameter.startswith("timesteps=")),
    )
    project = start(place, "main", *long)
    until(snapshots)
    (main,) = calling("steps.main", project.pid)
    (train,) = calling("steps.train", project.pid)
    working = [train, *children(train)]

    os.kill(main, signal.SIGKILL)
    project.wait(PATIENCE)
    killed = stopped(place)
    until(lambda: all(map(is_over, working)))
    again = place.mlflow_run("main", *long)

    assert (killed.info.status, killed.data.tags[INTERRUPTED_TAG]) == ("KILLED", "SIGTERM")
    assert again.returncode == 0, again.stderr
    assert f"== train: resumes run {killed.info.run_id}" in again.stdout
    resumed, first = runs(place, "train")
    assert (resumed.info.status, resumed.data.tags[RESUMED_FROM_TAG], first.info.run_id) == (
        "FINISHED",
        killed.info.run_id,
        killed.info.run_id,
    )
    assert int(resumed.data.tags[AT]) > 0
    assert [run.info.status for run in runs(place, "main")] == ["FINISHED", "FAILED"]
    assert [
        int(version.version)
        for version in place.client.search_model_versions("name = 'cartpole-v1-ppo'")
    ] == [1]


def test_main_hands_a_signal_on_and_goes_on_afterwards(place: Place) -> None:
    project = start(place, "main", *RECIPE)
    until(snapshots)

    project.terminate()
    project.wait(PATIENCE)
    until(lambda: all(run.info.status == "KILLED" for run in place.runs()))
    again = place.mlflow_run("main", *RECIPE)
    anew = place.mlflow_run("main", *RECIPE, "fresh=true")

    assert "== train: resumes run" in again.stdout
    assert (again.returncode, anew.returncode) == (0, 0)
    assert "resumes" not in anew.stdout
    assert "is reused" not in anew.stdout
    digests = {
        run.data.tags[POLICY_DIGEST_TAG]
        for run in runs(place, "train")
        if run.info.status == "FINISHED"
    }
    assert len(digests) == 1
