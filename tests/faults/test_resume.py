"""Trainings that are killed, move to another machine, or fill their disk."""

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
from tests.faults.resume import TRAININGS, Machine, list_differing_keys
from tests.processes import PROCESS_TIMEOUT
from tests.project.conftest import Place

pytestmark = [pytest.mark.process, pytest.mark.train]

SHORT_EPISODES = ("--env-kwargs", '{"max_episode_steps": 50}')
"""Options that make the evaluation of checkpoints faster."""
N_KILLED_WRITERS = int(os.environ.get("KILLED_SAVES", "6"))
"""Number of processes to kill while they write snapshots. 100 processes take ten minutes."""

WRITER_PROGRAM = """
import sys
from pathlib import Path
from stable_baselines3 import PPO
from mlflow_sb3.tracking import snapshot_header
from mlflow_sb3.training import snapshot_writer
from mlflow_sb3.training.learn_state import IterationLogger

model = PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, seed=0, device="cpu")
model.set_logger(IterationLogger([]))
model.learn(32)
folder = Path(sys.argv[1])
writer = snapshot_writer.SnapshotWriter(folder)
paths = snapshot_writer.list_valid_snapshots(folder)
last_step = max((snapshot_header.read_header(path).step for path in paths), default=0)
for step in range(last_step + 1, 10**9):
    model.num_timesteps = step
    writer.take(model, [])
    writer.wait()
    print(step, flush=True)
"""


@pytest.mark.parametrize(("algo", "timesteps"), [("dqn", 6000), ("ppo", 6000), ("sac", 800)])
def test_a_training_that_is_killed_three_times_ends_as_an_undisturbed_one(
    algo: str, timesteps: int, tmp_path: Path
) -> None:
    (tmp_path / "undisturbed").mkdir()
    (tmp_path / "killed").mkdir()
    undisturbed, killed = Machine(tmp_path / "undisturbed"), Machine(tmp_path / "killed")
    options = [*TRAININGS[algo], "--timesteps", str(timesteps), *SHORT_EPISODES]
    reference = undisturbed.train(*options)
    chance = random.Random(1)
    goals = [chance.uniform(part, part + 1) * timesteps / 4 for part in range(3)]

    run = killed.train_with_kills(
        3,
        killed.kill_at_steps(goals, chance),
        *options,
        every_time=["--snapshot-every", str(timesteps // 24)],
    )

    expected = undisturbed.read_history(reference)
    run_ids = [path.name for path in (tmp_path / "killed" / "state" / "mlflow-sb3").iterdir()]
    assert (killed.kills, killed.count_resumes()) == (3, 3)
    assert killed.read_digests(run) == undisturbed.read_digests(reference)
    assert list_differing_keys(expected, killed.read_history(run)) == []
    assert run.info.run_id not in run_ids
    assert killed.find_snapshots() == set()


def test_another_machine_resumes_from_the_uploaded_snapshot(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    machine = Machine(tmp_path)
    process = machine.start_and_wait_for_snapshot(*TRAININGS["ppo"], *SHORT_EPISODES)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PROCESS_TIMEOUT) == 143
    interrupted = machine.last_run()
    shutil.rmtree(tmp_path / "state")

    other = Machine(tmp_path / "other", machine.uri)
    run = other.train("--resume", interrupted.info.run_id, "--allow-pickle", "true")

    reference = other.train(*TRAININGS["ppo"], *SHORT_EPISODES)
    expected = other.read_history(reference)
    assert [tag for tag in interrupted.data.tags if tag.startswith(SNAPSHOT_TAG)]
    assert run.data.tags[RESUMED_FROM_TAG] == interrupted.info.run_id
    assert other.read_digests(run) == other.read_digests(reference)
    assert list_differing_keys(expected, other.read_history(run)) == []


@pytest.fixture(scope="module")
def stopped_machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Machine whose first run was interrupted by SIGTERM."""
    machine = Machine(tmp_path_factory.mktemp("stopped"))
    process = machine.start_and_wait_for_snapshot(*TRAININGS["ppo"])
    process.terminate()
    process.wait()
    return machine


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--resume", "STOPPED", "--seed", "7"],
            "Error: Run STOPPED was trained with seed=0, but seed is now 7. Leave seed out",
        ),
        (
            ["--resume", "STOPPED", "--env", "Acrobot-v1"],
            "Error: Run STOPPED was trained with env='CartPole-v1', but env is now 'Acrobot-v1'",
        ),
        (["--resume", "0" * 32], f"Error: Run with id={'0' * 32} not found"),
        (["--resume", "EMPTY"], "Error: Run EMPTY has no complete snapshot"),
        (
            ["--resume", "FINISHED"],
            "Error: Run FINISHED has finished, so there is nothing to resume",
        ),
    ],
)
def test_a_run_that_cannot_be_resumed_is_an_error_in_one_line(
    stopped_machine: Machine, options: list[str], message: str
) -> None:
    run_ids = {
        "STOPPED": find_first_run_id(stopped_machine),
        "EMPTY": create_run(stopped_machine, "KILLED"),
        "FINISHED": create_run(stopped_machine, "FINISHED"),
    }
    for name, run_id in run_ids.items():
        message = message.replace(name, run_id)
    state_home = str(stopped_machine.folder / "state")
    variables = {"MLFLOW_TRACKING_URI": stopped_machine.uri, "XDG_STATE_HOME": state_home}

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "steps.train",
            *(run_ids.get(option, option) for option in options),
        ],
        cwd=ROOT,
        env=Place(stopped_machine.folder).environment() | variables,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def find_first_run_id(machine: Machine) -> str:
    order = ["attributes.start_time ASC"]
    return str(machine.client.search_runs(["0"], order_by=order, max_results=1)[0].info.run_id)


def create_run(machine: Machine, status: str) -> str:
    run_id = str(machine.client.create_run("0").info.run_id)
    machine.client.set_terminated(run_id, status)
    return run_id


def test_a_writer_that_is_killed_leaves_a_complete_snapshot(tmp_path: Path) -> None:
    chance = random.Random(0)
    for _ in range(N_KILLED_WRITERS):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER_PROGRAM, str(tmp_path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            first_step = process.stdout.readline()
            time.sleep(chance.uniform(0, 0.5))
            process.kill()
            step = int([first_step, *process.stdout.read().split()][-1])

        newest = next(snapshot_writer.list_valid_snapshots(tmp_path))
        assert snapshot.load_snapshot(newest).model.num_timesteps in (step, step + 1)


def test_a_full_disk_only_costs_snapshots(small_disk: Path, tmp_path: Path) -> None:
    machine = Machine(tmp_path)

    run = machine.train(
        *TRAININGS["dqn"],
        *SHORT_EPISODES,
        "--state-folder",
        str(small_disk),
        "--snapshot-every",
        "1000",
    )

    message = "No space left on device. Training continues, and the previous snapshot stays."
    artifacts = {file.path for file in machine.client.list_artifacts(run.info.run_id)}
    assert run.info.status == "FINISHED"
    assert (tmp_path / "log.txt").read_text().count(message) == 1
    assert artifacts >= {"agent", "candidates.json", "training.json"}
