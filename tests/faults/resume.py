"""Trainings that are killed at random moments and resumed until they are done, beside one that nobody killed.

``python -m tests.faults.resume --kills 20`` prints the table.
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
from mlflow_sb3.training.provenance import TRAINING_JSON
from mlflow_sb3.training.resume import AT
from tests import ROOT, processes
from tests.processes import until

RECIPES = {
    "dqn": ["--algo", "dqn", "--timesteps", "12000"],
    "ppo": ["--algo", "ppo", "--timesteps", "12000"],
    "sac": ["--algo", "sac", "--env", "Pendulum-v1", "--timesteps", "1500", "--preset", "none"],
}
COLUMNS = (
    "training",
    "kills",
    "resumes from a snapshot",
    "processes that finished",
    "same weights, kept and last",
    "keys",
    "points",
    "keys that differ",
)
UNLIKE = ("time/fps", "time/time_elapsed")
"""Metrics whose values are of the clock."""

Moment = Callable[[subprocess.Popen[bytes]], bool]
"""Waits for the moment to kill a process; true if the process ended before."""


@dataclass
class Machine:
    """A place with a tracking store and a state folder of its own."""

    folder: Path
    uri: str = ""
    kills: int = 0
    variables: dict[str, str] = field(default_factory=dict)
    """Environment variables besides those of the place."""

    def __post_init__(self) -> None:
        self.uri = self.uri or f"sqlite:///{self.folder}/mlflow.db"

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        theirs = {
            name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")
        }
        own = {
            "MLFLOW_TRACKING_URI": self.uri,
            "XDG_STATE_HOME": str(self.folder / "state"),
        } | self.variables
        command = [sys.executable, "-m", "steps.train", *options]
        log = (self.folder / "log.txt").open("ab")
        with log:
            return subprocess.Popen(command, cwd=ROOT, env=theirs | own, stdout=log, stderr=log)

    def start_and_wait(self, *options: str) -> subprocess.Popen[bytes]:
        """Train until there is a snapshot."""
        self.client.search_experiments()
        process = self.start(*options)
        while not self.snapshots():
            assert process.poll() is None, (self.folder / "log.txt").read_text()[-2000:]
            time.sleep(0.1)
        return process

    def train(self, *options: str) -> Run:
        """Train without an interruption."""
        assert self.start(*options).wait() == 0, (self.folder / "log.txt").read_text()[-2000:]
        return self.last()

    def train_killed(
        self, kills: int, ends_before: Moment, *options: str, always: Sequence[str] = ()
    ) -> Run:
        """Train, kill whenever the moment has come until there were so many kills, and resume until it is done.

        Args:
            kills: How many there may have been on this machine.
            ends_before: The moment.
            options: Of what is trained.
            always: Options of those that resume it, too.

        Returns:
            The run that finished.
        """
        self.client.search_experiments()
        given, origin = list(options), None
        while True:
            process = self.start(*given, *always)
            if self.kills < kills:
                if ends_before(process):
                    break
                process.send_signal(signal.SIGKILL)
                process.wait()
                self.kills += 1
                if self._finished():
                    return self.last()  # killed when all was done
            else:
                process.wait()
                break
            origin = self._resumable() or origin
            given = ["--resume", origin] if origin else list(options)
        if (
            process.returncode != 0
            and origin
            and (done := self.client.get_run(origin)).info.status == "FINISHED"
        ):
            return done  # it was killed when all was done but for the delivery, which the one that was to go on with it made up for
        assert process.returncode == 0, (self.folder / "log.txt").read_text()[-2000:]
        return self.last()

    def on_its_way(self, steps: Iterable[float], chance: random.Random) -> Moment:
        """Each process in its turn has learned up to the next of these steps, and has a snapshot of its own."""
        goals = iter(steps)

        def ends_before(process: subprocess.Popen[bytes]) -> bool:
            goal, others = (
                next(goals),
                self.snapshots(),
            )  # a process takes seconds before it has one
            until(lambda: process.poll() is not None or _step(self.snapshots() - others) >= goal)
            return _ended(process, chance.uniform(0, 0.1))

        return ends_before

    def snapshots(self) -> set[Path]:
        return processes.snapshots(self.folder / "state")

    def last(self) -> Run:
        return self.client.search_runs(
            ["0"], order_by=["attributes.start_time DESC"], max_results=1
        )[0]

    def _finished(self) -> bool:
        runs = self.client.search_runs(
            ["0"], order_by=["attributes.start_time DESC"], max_results=1
        )
        return bool(runs) and runs[0].info.status == "FINISHED"

    def _resumable(self) -> str | None:
        """The last run, if a snapshot of it is there."""
        runs = self.client.search_runs(
            ["0"], order_by=["attributes.start_time DESC"], max_results=1
        )
        folders = [
            self.folder / "state" / "mlflow-sb3" / run.info.run_id / "snapshots" for run in runs
        ]
        return runs[0].info.run_id if folders and list(folders[0].glob("*.snapshot")) else None

    def digests(self, run: Run) -> dict[str, str]:
        """SHA-256 of the weights of a finished run, those that it kept and the last."""
        found: dict[str, str] = json.loads(
            mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{TRAINING_JSON}")
        )["policy"]
        return found

    def resumes(self) -> int:
        """How many processes went on from a snapshot behind step 0; of one that was killed soon, its journal alone may say so."""
        return sum(self._resumed_at(run) > 0 for run in self.client.search_runs(["0"]))

    def _resumed_at(self, run: Run) -> int:
        entries = journal.read(self.folder / "state" / "mlflow-sb3" / run.info.run_id)
        said = run.data.tags | {
            key: value for entry in entries for key, value in entry.get("tags", {}).items()
        }
        return int(said.get(AT, "0"))

    def history(self, run: Run) -> dict[str, list[tuple[int, float]]]:
        """Step and value of every point, by key; of the clock, the step alone."""
        return {
            key: sorted(
                (point.step, 0.0 if key in UNLIKE else point.value)
                for point in self.client.get_metric_history(run.info.run_id, key)
            )
            for key in run.data.metrics
        }


def at_random(seconds: float, chance: random.Random) -> Moment:
    """Any moment within so many seconds after the start of a process."""
    return lambda process: _ended(process, chance.uniform(0, seconds))


def _step(snapshots: Iterable[Path]) -> int:
    """The step of the newest snapshot; 0 without one."""
    newest = 0
    for path in snapshots:
        with suppress(FileNotFoundError):  # the training has finished
            newest = max(newest, snapshot_header.read_header(path).step)
    return newest


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def differing(
    reference: dict[str, list[tuple[int, float]]], found: dict[str, list[tuple[int, float]]]
) -> list[str]:
    """The keys whose points are not the same, each once."""
    return [
        key
        for key in sorted({*reference, *found})
        if Counter(reference.get(key, [])) != Counter(found.get(key, []))
    ]


@click.command()
@click.option("--kills", default=20, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.argument("algorithms", nargs=-1)
def main(kills: int, seed: int, algorithms: tuple[str, ...]) -> None:
    """Print a row for each algorithm."""
    click.echo(f"| {' | '.join(COLUMNS)} |")
    click.echo(f"|{' --- |' * len(COLUMNS)}")
    for algo in algorithms or tuple(RECIPES):
        chance = random.Random(f"{algo} {seed}")
        with TemporaryDirectory() as folder:
            machine = Machine(Path(folder))
            start = time.monotonic()
            reference = machine.train(*RECIPES[algo])
            seconds = time.monotonic() - start
            digests, expected = machine.digests(reference), machine.history(reference)
            same, finished, differences, points = 0, 0, [], 0
            while machine.kills < kills:
                run = machine.train_killed(kills, at_random(seconds, chance), *RECIPES[algo])
                found = machine.history(run)
                finished += 1
                same += machine.digests(run) == digests
                points += sum(map(len, found.values()))
                differences += differing(expected, found)
            row = [
                " ".join(RECIPES[algo]),
                machine.kills,
                machine.resumes(),
                finished,
                same,
                len(expected),
                points,
                differences or "none",
            ]
        click.echo(f"| {' | '.join(map(str, row))} |")


if __name__ == "__main__":
    main()
