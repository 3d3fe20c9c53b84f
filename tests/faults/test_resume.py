"""Trainings that are killed with -9, lose their machine, or find their disk full."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlflow_sb3.tracking.snapshot_uploader import SNAPSHOT_TAG
from mlflow_sb3.training import snapshot, snapshot_writer
from mlflow_sb3.training.resume import RESUMED_FROM_TAG
from tests import ROOT
from tests.faults.resume import RECIPES, Machine, differing
from tests.processes import PATIENCE
from tests.project.conftest import Place

pytestmark = pytest.mark.process

KILLED_SAVES = int(os.environ.get("KILLED_SAVES", "6"))
"""How many processes are killed while they save; 100 take ten minutes."""

SAVING = """
import sys
from pathlib import Path
from stable_baselines3 import PPO
from mlflow_sb3 import shelf, snapshot
from mlflow_sb3.training.loop import _Logger
model = PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, seed=0, device="cpu")
model.set_logger(_Logger([]))
model.learn(32)
folder = Path(sys.argv[1])
kept = shelf.Shelf(folder)
before = max((snapshot.read_header(path).step for path in shelf.whole(folder)), default=0)
for step in range(before + 1, 10**9):
    model.num_timesteps = step
    kept.take(model, [])
    kept.wait()
    print(step, flush=True)
"""


@pytest.mark.parametrize("algo", RECIPES)
def test_a_training_that_is_killed_three_times_ends_as_if_nobody_had(
    algo: str, tmp_path: Path
) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole, killed = Machine(tmp_path / "whole"), Machine(tmp_path / "killed")
    reference = whole.train(*RECIPES[algo])
    timesteps, chance = int(RECIPES[algo][RECIPES[algo].index("--timesteps") + 1]), random.Random(1)
    goals = [chance.uniform(part, part + 1) * timesteps / 4 for part in range(3)]

    often = ["--snapshot-every", str(timesteps // 24)]
    run = killed.train_killed(3, killed.on_its_way(goals, chance), *RECIPES[algo], always=often)

    assert (killed.kills, killed.resumes()) == (3, 3)
    assert killed.digests(run) == whole.digests(reference)
    assert differing(whole.history(reference), killed.history(run)) == []
    assert [
        path
        for path in (tmp_path / "killed" / "state" / "mlflow-sb3").iterdir()
        if path.name == run.info.run_id
    ] == []


def test_another_machine_goes_on_from_what_was_uploaded(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    here = Machine(tmp_path)
    process = here.start_and_wait(*RECIPES["ppo"])
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 143
    lost = here.last()
    shutil.rmtree(tmp_path / "state")

    other = Machine(tmp_path / "other", here.uri)
    run = other.train("--resume", lost.info.run_id)

    reference = other.train(*RECIPES["ppo"])
    assert [tag for tag in lost.data.tags if tag.startswith(SNAPSHOT_TAG)]
    assert run.data.tags[RESUMED_FROM_TAG] == lost.info.run_id
    assert other.digests(run) == other.digests(reference)
    assert differing(other.history(reference), other.history(run)) == []


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine whose last run was stopped in the middle of its training."""
    machine = Machine(tmp_path_factory.mktemp("stopped"))
    process = machine.start_and_wait(*RECIPES["ppo"])
    process.terminate()
    process.wait()
    return machine


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ["--resume", "STOPPED", "--seed", "7"],
            "Error: --seed is 7, and run STOPPED was trained with 0; leave it out",
        ),
        (
            ["--resume", "STOPPED", "--env", "Acrobot-v1"],
            "Error: --env is 'Acrobot-v1', and run STOPPED was trained with 'CartPole-v1'",
        ),
        (["--resume", "0" * 32], f"Error: Run with id={'0' * 32} not found"),
        (["--resume", "EMPTY"], "Error: run EMPTY left no whole snapshot"),
        (["--resume", "FINISHED"], "Error: run FINISHED finished, and there is nothing to resume"),
    ],
)
def test_what_cannot_be_resumed_is_one_line(
    stopped: Machine, options: list[str], says: str
) -> None:
    names = {
        "STOPPED": _first(stopped),
        "EMPTY": _made(stopped, "KILLED"),
        "FINISHED": _made(stopped, "FINISHED"),
    }
    given = [names.get(option, option) for option in options]

    own = {"MLFLOW_TRACKING_URI": stopped.uri, "XDG_STATE_HOME": str(stopped.folder / "state")}
    done = subprocess.run(
        [sys.executable, "-m", "steps.train", *given],
        cwd=ROOT,
        env=Place(stopped.folder).environment() | own,
        capture_output=True,
        text=True,
        check=False,
    )

    expected = says
    for name, run_id in names.items():
        expected = expected.replace(name, run_id)
    assert done.returncode in (1, 2)
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def _first(machine: Machine) -> str:
    return str(
        machine.client.search_runs(["0"], order_by=["attributes.start_time ASC"], max_results=1)[
            0
        ].info.run_id
    )


def _made(machine: Machine, status: str) -> str:
    run_id = str(machine.client.create_run("0").info.run_id)
    machine.client.set_terminated(run_id, status)
    return run_id


def test_no_torn_snapshot_is_ever_loaded_however_often_saving_is_killed(tmp_path: Path) -> None:
    chance = random.Random(0)
    for _ in range(KILLED_SAVES):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVING, str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            said = int(process.stdout.readline())
            time.sleep(chance.uniform(0, 0.5))
            process.kill()
            said = int([str(said), *process.stdout.read().split()][-1])

        newest = next(snapshot_writer.valid_snapshots(tmp_path))
        assert snapshot.load_snapshot(newest)["model"].num_timesteps in (said, said + 1)


def test_a_disk_that_is_full_costs_snapshots_and_nothing_else(
    small_disk: Path, tmp_path: Path
) -> None:
    machine = Machine(tmp_path)

    run = machine.train(
        *RECIPES["dqn"], "--state-folder", str(small_disk), "--snapshot-every", "1000"
    )

    log = (tmp_path / "log.txt").read_text()
    assert run.info.status == "FINISHED"
    assert log.count("No space left on device; training goes on, and the one before it stays.") == 1
    assert {file.path for file in machine.client.list_artifacts(run.info.run_id)} >= {
        "agent",
        "candidates.json",
        "training.json",
    }
