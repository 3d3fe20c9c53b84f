"""Kill trainings at random times, resume them, and compare them with an undisturbed training.

``python -m tests.faults.resume --kills 20`` prints the results as a table.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run

from mlflow_sb3.tracking import journal, snapshot_header
from mlflow_sb3.training.resume_point import RESUMED_AT_TAG
from mlflow_sb3.training.training_record import TRAINING_JSON
from tests import ROOT, processes
from tests.processes import wait_until

TRAININGS = {
    "dqn": ["--algo", "dqn", "--timesteps", "12000"],
    "ppo": ["--algo", "ppo", "--timesteps", "12000"],
    "sac": ["--algo", "sac", "--env", "Pendulum-v1", "--timesteps", "1500", "--preset", "none"],
}
"""Options of the entry point ``train``, by algorithm."""
EVALUATION = ["--eval-budget", "1e6", "--race-episodes", "76"]
"""Options for the same checkpoints however busy the machine is."""
COLUMNS = (
    "training",
    "kills",
    "resumes from a snapshot",
    "finished trainings",
    "with the same weights",
    "metric keys",
    "metric points",
    "keys with differences",
)
CLOCK_METRICS = ("time/fps", "time/time_elapsed")
"""Metrics that depend on the clock."""

MetricHistory = dict[str, list[tuple[int, float]]]
"""Step and value of each point, by metric key."""
EndsBeforeKill = Callable[[subprocess.Popen[bytes]], bool]
"""Wait for the time to kill a process. Return True if the process has ended before."""


@dataclass
class Machine:
    """A folder with its own tracking store and its own state folder, in place of a machine."""

    folder: Path
    uri: str = ""
    """Tracking URI; by default, a SQLite file in the folder."""
    kills: int = 0
    """Number of processes that were killed."""
    variables: dict[str, str] = field(default_factory=dict)
    """Additional environment variables."""

    def __post_init__(self) -> None:
        self.uri = self.uri or f"sqlite:///{self.folder}/mlflow.db"

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """Start the entry point ``train`` as a process."""
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")
        }
        own = {"MLFLOW_TRACKING_URI": self.uri, "XDG_STATE_HOME": str(self.folder / "state")}
        evaluation = [] if "--resume" in options else EVALUATION
        command = [sys.executable, "-m", "steps.train", *evaluation, *options]
        with (self.folder / "log.txt").open("ab") as log:
            return subprocess.Popen(
                command, cwd=ROOT, env=inherited | own | self.variables, stdout=log, stderr=log
            )

    def start_and_wait_for_snapshot(self, *options: str) -> subprocess.Popen[bytes]:
        """Start a training and wait for its first snapshot."""
        self.client.search_experiments()  # creates the tables
        process = self.start(*options)
        while not self.find_snapshots():
            assert process.poll() is None, self.read_log()
            time.sleep(0.1)
        return process

    def train(self, *options: str) -> Run:
        """Train without an interruption, and return the run."""
        assert self.start(*options).wait() == 0, self.read_log()
        return self.last_run()

    def train_with_kills(
        self,
        kills: int,
        ends_before_kill: EndsBeforeKill,
        *options: str,
        every_time: Sequence[str] = (),
    ) -> Run:
        """Train, and kill and resume the process until it was killed often enough.

        Args:
            kills: Number of kills on this machine, including those of earlier calls.
            ends_before_kill: Waits for the time of each kill.
            options: Options of the first process.
            every_time: More options of each process, including those that resume.

        Returns:
            The run that finished.
        """
        self.client.search_experiments()  # creates the tables
        next_options, interrupted_run_id = list(options), None
        while True:
            process = self.start(*next_options, *every_time)
            if self.kills >= kills:
                process.wait()
                break
            if ends_before_kill(process):
                break
            process.send_signal(signal.SIGKILL)
            process.wait()
            self.kills += 1
            if self._has_finished():
                return self.last_run()  # the kill came after the end of the run
            interrupted_run_id = self._find_resumable() or interrupted_run_id
            if interrupted_run_id:
                next_options = ["--resume", interrupted_run_id]
        if process.returncode != 0 and interrupted_run_id:
            # The killed process may have finished all but the delivery. The process that should
            # resume it then delivers the rest, and fails because there is nothing to resume.
            run = self.client.get_run(interrupted_run_id)
            if run.info.status == "FINISHED":
                return run
        assert process.returncode == 0, self.read_log()
        return self.last_run()

    def kill_at_steps(self, steps: Iterable[float], chance: random.Random) -> EndsBeforeKill:
        """Kill each process after its own snapshot has reached the next of these steps."""
        goals = iter(steps)

        def ends_before_kill(process: subprocess.Popen[bytes]) -> bool:
            goal = next(goals)
            earlier = self.find_snapshots()  # a new process needs seconds for its first snapshot
            wait_until(
                lambda: (
                    process.poll() is not None
                    or _read_newest_step(self.find_snapshots() - earlier) >= goal
                )
            )
            return _ends_within(process, chance.uniform(0, 0.1))

        return ends_before_kill

    def read_log(self) -> str:
        """Return the end of the output of all processes."""
        return (self.folder / "log.txt").read_text()[-2000:]

    def find_snapshots(self) -> set[Path]:
        """Return the snapshots of all runs on this machine."""
        return processes.find_snapshots(self.folder / "state")

    def last_run(self) -> Run:
        """Return the run that started last."""
        return self._search_runs()[0]

    def read_digests(self, run: Run) -> dict[str, str]:
        """Return the digests of the selected and of the last weights of a finished run."""
        text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{TRAINING_JSON}")
        digests: dict[str, str] = json.loads(text)["policy"]
        return digests

    def count_resumes(self) -> int:
        """Return how many processes resumed from a snapshot after step 0."""
        return sum(self._read_resume_step(run) > 0 for run in self.client.search_runs(["0"]))

    def read_history(self, run: Run) -> MetricHistory:
        """Return all metrics of a run; those of the clock with the value 0."""
        return {
            key: sorted(
                (point.step, 0.0 if key in CLOCK_METRICS else point.value)
                for point in self.client.get_metric_history(run.info.run_id, key)
            )
            for key in run.data.metrics
        }

    def _search_runs(self) -> list[Run]:
        """Return the run that started last, in a list; an empty list without runs."""
        order = ["attributes.start_time DESC"]
        return list(self.client.search_runs(["0"], order_by=order, max_results=1))

    def _has_finished(self) -> bool:
        return any(run.info.status == "FINISHED" for run in self._search_runs())

    def _find_resumable(self) -> str | None:
        """Return the id of the last run if it has a snapshot."""
        for run in self._search_runs():
            folder = self.folder / "state" / "mlflow-sb3" / run.info.run_id / "snapshots"
            if any(folder.glob("*.snapshot")):
                return str(run.info.run_id)
        return None

    def _read_resume_step(self, run: Run) -> int:
        """Return the step at which a run resumed; 0 if it did not resume.

        If the process was killed soon, only the journal contains the tag.
        """
        entries = journal.read_entries(self.folder / "state" / "mlflow-sb3" / run.info.run_id)
        tags = dict(run.data.tags)
        for entry in entries:
            tags |= entry.get("tags", {})
        return int(tags.get(RESUMED_AT_TAG, "0"))


def kill_at_random(seconds: float, chance: random.Random) -> EndsBeforeKill:
    """Kill each process at a random time within this many seconds after its start."""
    return lambda process: _ends_within(process, chance.uniform(0, seconds))


def list_differing_keys(expected: MetricHistory, history: MetricHistory) -> list[str]:
    """Return the metric keys whose points differ between two histories."""
    return [
        key
        for key in sorted({*expected, *history})
        if Counter(expected.get(key, [])) != Counter(history.get(key, []))
    ]


def _read_newest_step(snapshots: Iterable[Path]) -> int:
    """Return the step of the newest snapshot; 0 without snapshots."""
    newest = 0
    for path in snapshots:
        with suppress(FileNotFoundError):  # a finished training removes its snapshots
            newest = max(newest, snapshot_header.read_header(path).step)
    return newest


def _ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def measure(algo: str, kills: int, seed: int) -> list[object]:
    """Kill trainings of one algorithm, and return a row of the table."""
    chance, options = random.Random(f"{algo} {seed}"), TRAININGS[algo]
    n_finished, n_same, n_points, differences = 0, 0, 0, list[str]()
    with TemporaryDirectory() as folder:
        machine = Machine(Path(folder))
        start = time.monotonic()
        reference = machine.train(*options)
        seconds = time.monotonic() - start
        digests, expected = machine.read_digests(reference), machine.read_history(reference)
        while machine.kills < kills:
            run = machine.train_with_kills(kills, kill_at_random(seconds, chance), *options)
            history = machine.read_history(run)
            n_finished += 1
            n_same += machine.read_digests(run) == digests
            n_points += sum(map(len, history.values()))
            differences += list_differing_keys(expected, history)
        return [
            " ".join(options),
            machine.kills,
            machine.count_resumes(),
            n_finished,
            n_same,
            len(expected),
            n_points,
            differences or "none",
        ]


@click.command()
@click.option("--kills", default=20, show_default=True, help="Number of kills per algorithm.")
@click.option("--seed", default=0, show_default=True, help="Seed of the times of the kills.")
@click.argument("algorithms", nargs=-1)
def main(kills: int, seed: int, algorithms: tuple[str, ...]) -> None:
    """Print one row per algorithm. By default, measure all algorithms."""
    click.echo(f"| {' | '.join(COLUMNS)} |")
    click.echo(f"|{' --- |' * len(COLUMNS)}")
    for algo in algorithms or tuple(TRAININGS):
        click.echo(f"| {' | '.join(map(str, measure(algo, kills, seed)))} |")


if __name__ == "__main__":
    main()
