"""The lease on an `mlflow server` with PostgreSQL: one owner at a time, also when owners are killed; and two schedules that overlap."""

from __future__ import annotations

import functools
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_sb3.runs import heartbeat, lease
from mlflow_sb3.runs.previous_attempt import CONTINUES
from tests.faults.conftest import served
from tests.faults.test_main import RECIPE, snapshots, start
from tests.faults.worker import context
from tests.processes import until
from tests.project.conftest import Place

pytestmark = pytest.mark.postgres

CONTENDERS = int(os.environ.get("LEASE_CONTENDERS", "5"))
"""Each of them owns the lease once, and is killed then."""


def contend(uri: str, state: str, pipe: Connection) -> None:
    """Try to get the lease whenever told to, with a run of its own, and keep it until told that the round is over."""
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("contenders")
    os.environ["XDG_STATE_HOME"] = state
    heartbeat.INTERVAL, heartbeat.WATCHED = (
        1.0,
        6.0,
    )  # beats of all of them at once are much for a slow machine
    for name in (
        "create_model_version",
        "search_model_versions",
        "delete_model_version",
        "get_run",
    ):
        setattr(MlflowClient, name, slowed(getattr(MlflowClient, name)))
    while True:
        with mlflow.start_run() as run, heartbeat.heartbeat(run.info.run_id):
            pipe.send("ready")
            pipe.recv()
            try:
                with lease.held("agent", run.info.run_id) as held:
                    held.check()
                    pipe.send("owner")
                    pipe.recv()
                    held.check()
            except lease.TakenError as taken:
                pipe.send(taken.owner.info.run_id)
                pipe.recv()


def slowed(method: Callable[..., Any]) -> Callable[..., Any]:
    """Sometimes slow before the call, sometimes after it."""

    @functools.wraps(method)
    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(random.choice((0, 0, random.uniform(0, 0.4))))
        answer = method(*args, **kwargs)
        time.sleep(random.choice((0, 0, random.uniform(0, 0.4))))
        return answer

    return slow


@pytest.fixture(scope="module")
def server(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One for both tests."""
    with served(postgres, tmp_path_factory.mktemp("server")) as uri:
        yield uri


def test_of_many_at_once_one_gets_the_lease_of_the_dead_and_the_others_leave(
    server: str, tmp_path: Path
) -> None:
    mlflow.set_experiment("contenders")
    contenders: dict[Any, Connection] = {}
    for number in range(CONTENDERS):
        pipe, theirs = context.Pipe()
        process = context.Process(
            target=contend,
            args=(server, str(tmp_path / f"machine{number % 2}"), theirs),
            daemon=True,
        )
        process.start()
        contenders[process] = pipe

    while contenders:
        answers = [pipe.recv() for pipe in contenders.values()]
        for pipe in contenders.values():
            pipe.send("go")
        said = {process: pipe.recv() for process, pipe in contenders.items()}
        owners = [process for process, answer in said.items() if answer == "owner"]
        tickets = MlflowClient().search_model_versions("name = 'agent.lease'")

        assert answers == ["ready"] * len(contenders)
        assert len(owners) == 1
        assert {answer for answer in said.values() if answer != "owner"} <= {
            ticket.run_id for ticket in tickets
        }
        os.kill(owners[0].pid, signal.SIGKILL)
        owners[0].join()
        del contenders[owners[0]]
        for pipe in contenders.values():
            pipe.send("over")


def test_of_two_schedules_the_second_leaves_and_the_next_goes_on_with_the_first_that_was_killed(
    server: str, tmp_path: Path
) -> None:
    place = Place(tmp_path, {"MLFLOW_TRACKING_URI": server, "MLFLOW_EXPERIMENT_NAME": "schedules"})
    call = (
        "main",
        *RECIPE,
        "gate_episodes=50",
        "episodes=3",
        "model_name=scheduled",
        "exclusive=true",
    )
    first = start(place, *call)
    until(snapshots)
    os.killpg(
        first.pid, signal.SIGSTOP
    )  # so that it is at work for as long as the second one needs

    second = place.mlflow_run(*call)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    third = place.mlflow_run(*call)

    client = MlflowClient()
    experiment = client.get_experiment_by_name("schedules")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.mlflow.project.entryPoint = 'main'")
    resumed, left, killed = runs
    assert second.returncode == 0, second.stderr
    assert (
        f"Left: run {killed.info.run_id} of main is at work on scheduled since 20" in second.stdout
    )
    assert "==" not in second.stdout
    assert (left.info.status, left.data.tags[lease.LEFT]) == ("FINISHED", killed.info.run_id)
    assert third.returncode == 0, third.stderr
    assert "== train: resumes run" in third.stdout
    assert (resumed.info.status, resumed.data.tags[CONTINUES], killed.info.status) == (
        "FINISHED",
        killed.info.run_id,
        "FAILED",
    )
    assert [version.version for version in client.search_model_versions("name = 'scheduled'")] == [
        "1"
    ]
    assert client.search_model_versions("name = 'scheduled.lease'") == []
