"""A real `mlflow server` that goes away while an agent is trained, and proxies in front of it that delay and cut."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import mlflow
import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient
from mlflow.entities import Run

from deploy.server.process import find_free_port, is_reachable
from mlflow_sb3.envs import env_spec
from mlflow_sb3.runs import signals
from mlflow_sb3.tracking import run_logger
from mlflow_sb3.tracking.metric_writer import MetricWriter
from mlflow_sb3.tracking.run_logger import RunLogger
from mlflow_sb3.training import loop
from mlflow_sb3.training.provenance import POLICY_DIGEST_TAG
from steps.step import Step
from tests import ROOT
from tests.faults.proxy import Proxy
from tests.faults.resume import Machine, differing
from tests.processes import PATIENCE, until
from tests.project.conftest import Place

pytestmark = pytest.mark.process

AWAY = float(os.environ.get("SERVER_AWAY", "20"))
"""Seconds that the server is away; 60 take a minute longer."""
HELD = 0.1
"""Seconds that the training thread may be held."""
SHORT = ("--timesteps", "300")
QUICKLY = {"MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0", "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0"}
"""MLflow tries as often as by default, and waits less."""
PPO = {"n_steps": 64, "batch_size": 64, "n_epochs": 1}


class Server:
    """An `mlflow server` on a store of its own, which can be killed and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(folder, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
        self.port = find_free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            "mlflow",
            "server",
            "--backend-store-uri",
            self.place.store,
            "--artifacts-destination",
            str(self.place.folder / "served"),
        ]
        with (self.place.folder / "server.txt").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--workers", "1", "--port", str(self.port)],
                cwd=self.place.folder,
                env=self.place.environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(lambda: is_reachable(f"{self.uri}/health"))

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        if self._process is not None:
            self.send(signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path)
    found.start()
    yield found
    found.kill()


@contextmanager
def talking_to(uri: str) -> Iterator[None]:
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    yield
    mlflow.set_tracking_uri(before)


def assert_every_point_arrived_once(
    client: MlflowClient, run_id: str, written: list[tuple[str, float, int, int]]
) -> None:
    stored = [
        (key, point.value, point.timestamp, point.step)
        for key in {key for key, *_ in written}
        for point in client.get_metric_history(run_id, key)
    ]
    assert sorted(stored) == sorted(set(written))
    assert len(stored) > 500


class Slowly(MetricWriter):
    """Remembers what it hands on, and takes a little time for each rollout, so that training lasts as long as the outage."""

    def __init__(
        self, told: RunLogger, written: list[tuple[str, float, int, int]], seconds: float
    ) -> None:
        super().__init__(told)
        self._seconds = seconds
        points = told.points

        def remember(given: Any) -> None:
            listed = list(given)
            written.extend(listed)
            points(listed)

        told.points = remember  # type: ignore[method-assign, assignment]

    def write(self, *args: Any, **kwargs: Any) -> None:
        super().write(*args, **kwargs)
        time.sleep(self._seconds)


def train(
    run_id: str, folder: Path, seconds: float
) -> tuple[RunLogger, list[tuple[str, float, int, int]]]:
    """Train for some seconds; returns what was written, and how long the thread was held."""
    written: list[tuple[str, float, int, int]] = []
    rollouts = 80
    with RunLogger(run_id, folder, patience=PATIENCE) as told:
        writer = Slowly(told, written, seconds / rollouts)
        description = env_spec.compose_spec("CartPole-v1", kwargs={"max_episode_steps": 10})
        loop.train(description, "ppo", timesteps=64 * rollouts, hyperparams=PPO, writers=[writer])
        told.file("agent/agent.zip", b"the agent")
    return told, written


def started(client: MlflowClient) -> str:
    return str(client.create_run("0").info.run_id)


def status(client: MlflowClient, run_id: str) -> str:
    return str(client.get_run(run_id).info.status)


def test_a_server_that_is_killed_and_comes_back_has_every_point_once_and_never_holds_the_training(
    server: Server, tmp_path: Path, record_property: Any
) -> None:
    client = MlflowClient(server.uri)
    run_id = started(client)
    with talking_to(server.uri):
        killer = threading.Timer(4, server.kill)
        reviver = threading.Timer(4 + AWAY, server.start)
        killer.start()
        reviver.start()
        told, written = train(run_id, tmp_path / "run", 10 + AWAY)
        reviver.join()

    assert_every_point_arrived_once(client, run_id, written)
    assert status(client, run_id) == "FINISHED"
    assert told.longest < HELD
    record_property("held_ms", 1000 * told.longest)


@pytest.mark.parametrize(("delay", "cut"), [(5.0, 0.0), (0.0, 0.5)], ids=["slow", "cut"])
def test_a_network_that_is_slow_or_cuts_connections_delivers_every_point_once(
    server: Server, tmp_path: Path, delay: float, cut: float
) -> None:
    client = MlflowClient(server.uri)
    run_id = started(client)
    with Proxy(server.port).running() as proxy, talking_to(f"http://127.0.0.1:{proxy.port}"):
        proxy.delay, proxy.cut = delay, cut
        told, written = train(run_id, tmp_path / "run", 20)

    assert_every_point_arrived_once(client, run_id, written)
    assert status(client, run_id) == "FINISHED"
    assert told.longest < HELD
    assert proxy.answers > 2
    assert cut == 0.0 or proxy.cuts > 1


def test_a_step_behind_a_network_of_five_seconds_trains_the_same_agent_with_every_point_once(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "through").mkdir()
    whole = Machine(tmp_path / "whole")
    reference = whole.train(*SHORT)
    with Proxy(server.port).running() as proxy:
        proxy.delay = 5.0
        Machine(tmp_path / "through", f"http://127.0.0.1:{proxy.port}").train(*SHORT)

    here = Machine(tmp_path / "through", server.uri)
    run = here.last()
    assert run.info.status == "FINISHED"
    assert differing(whole.history(reference), here.history(run)) == []
    assert run.data.tags[POLICY_DIGEST_TAG] == reference.data.tags[POLICY_DIGEST_TAG]


def test_a_step_of_whose_connections_half_are_cut_says_everything_once_or_how_to_say_it(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "through").mkdir()
    whole = Machine(tmp_path / "whole")
    reference = whole.train(*SHORT)
    folder = tmp_path / "through"
    with Proxy(server.port).running() as proxy:
        through = Machine(folder, f"http://127.0.0.1:{proxy.port}", variables=QUICKLY)
        step = through.start(*SHORT, "--delivery-timeout", "1")
        until(
            lambda: step.poll() is not None or list(folder.glob("state/mlflow-sb3/*/journal.jsonl"))
        )
        proxy.cut = 0.5
        code = step.wait()
        proxy.cut = 0.0
        said = (folder / "log.txt").read_text()
        command = re.search(
            r"Error: the tracking server \S+ did not take everything .*: python -m steps\.deliver (\S+)$",
            said,
            re.MULTILINE,
        )
        assert (code, command is None) in ((0, True), (1, False)), said
        if command is not None:
            subprocess.run(
                [sys.executable, "-m", "steps.deliver", command[1]],
                cwd=ROOT,
                env=server.place.environment(),
                check=True,
            )

    here = Machine(folder, server.uri)
    run = here.last()
    assert (run.info.status, run.data.tags.get("error")) == ("FINISHED", None)
    assert differing(whole.history(reference), here.history(run)) == []
    assert run.data.tags[POLICY_DIGEST_TAG] == reference.data.tags[POLICY_DIGEST_TAG]
    assert {file.path for file in here.client.list_artifacts(run.info.run_id)} >= {
        "agent",
        "candidates.json",
        "training.json",
    }
    assert not (folder / "state" / "mlflow-sb3" / run.info.run_id).exists()
    assert proxy.cuts > 1


def end_of_a_step(server: Server, do: Callable[[Proxy], object]) -> tuple[Result, Proxy, list[Run]]:
    """How a step ends behind a proxy to which that was done in the end, and the runs that are there then."""
    with Proxy(server.port).running() as proxy, talking_to(f"http://127.0.0.1:{proxy.port}"):
        experiment = mlflow.set_experiment("done")
        step = click.command(cls=Step)(lambda: do(proxy))
        done = CliRunner().invoke(step)
    return done, proxy, MlflowClient(server.uri).search_runs([experiment.experiment_id])


def test_a_step_that_is_done_says_so_though_answers_break_off(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    done, proxy, runs = end_of_a_step(server, lambda proxy: setattr(proxy, "break_off", 5))

    assert (done.exit_code, proxy.break_off) == (0, 0), done.output
    assert [run.info.status for run in runs] == ["FINISHED"]


def test_a_signal_while_a_step_says_that_it_is_done_leaves_no_run_that_seems_to_go_on_and_no_other(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def be_slow(proxy: Proxy) -> None:
        proxy.delay = 1.0
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()

    done, _, (run,) = end_of_a_step(server, be_slow)

    assert done.exit_code == 143, done.output
    assert (run.info.status, run.data.tags[signals.INTERRUPTED_TAG]) == ("KILLED", "SIGTERM")


def last_run(client: MlflowClient) -> Run:
    return client.search_runs(["0"], order_by=["attributes.start_time DESC"], max_results=1)[0]


def test_a_server_that_goes_away_for_good_costs_the_step_and_a_command_delivers_everything_once(
    server: Server,
) -> None:
    own = server.place.environment() | {"MLFLOW_TRACKING_URI": server.uri}
    command = [
        sys.executable,
        "-m",
        "steps.train",
        "--timesteps",
        "12000",
        "--delivery-timeout",
        "3",
    ]
    step = subprocess.Popen(command, cwd=ROOT, env=own, stderr=subprocess.PIPE, text=True)
    client = MlflowClient(server.uri)
    with step:
        until(
            lambda: any(
                "rollout/ep_rew_mean" in run.data.metrics
                for run in client.search_runs(["0"], max_results=1)
            )
        )
        server.kill()
        _, errors = step.communicate(timeout=PATIENCE)

    last_line = errors.strip().splitlines()[-1]
    found = re.search(r"python -m steps\.deliver (\S+)", last_line)
    assert step.returncode == 1
    assert last_line.startswith("Error: the tracking server http://127.0.0.1")
    assert found is not None
    assert (Path(found[1]) / "files" / "agent" / "agent.zip").exists()

    server.start()
    delivered = subprocess.run(
        [sys.executable, "-m", "steps.deliver", found[1]],
        cwd=ROOT,
        env=own,
        capture_output=True,
        text=True,
        check=False,
    )

    assert delivered.returncode == 0, delivered.stderr
    run = last_run(client)
    assert run.info.status == "FINISHED"
    assert "error" not in run.data.tags
    assert {file.path for file in client.list_artifacts(run.info.run_id)} >= {
        "agent",
        "candidates.json",
        "training.json",
    }
    reference = subprocess.run(
        command, cwd=ROOT, env=own, capture_output=True, text=True, check=False
    )
    assert reference.returncode == 0, reference.stderr
    whole = last_run(client)
    for key in whole.data.metrics:
        expected, arrived = (
            client.get_metric_history(one.info.run_id, key) for one in (whole, run)
        )
        assert sorted(point.step for point in arrived) == sorted(
            point.step for point in expected
        ), key
    assert run.data.tags["mlflow_sb3.policy_digest"] == whole.data.tags["mlflow_sb3.policy_digest"]


def test_main_that_is_told_to_stop_while_the_server_is_away_stops_in_seconds(
    server: Server,
) -> None:
    state = server.place.folder / "state"
    own = server.place.environment() | {
        "MLFLOW_TRACKING_URI": server.uri,
        "XDG_STATE_HOME": str(state),
    }
    command = [sys.executable, "-m", "steps.main", "--timesteps", "100000"]
    with subprocess.Popen(command, cwd=ROOT, env=own, stderr=subprocess.PIPE, text=True) as main:
        until(lambda: list(state.glob("mlflow-sb3/*/snapshots/*.snapshot")))
        server.kill()
        start = time.monotonic()
        main.terminate()
        _, errors = main.communicate(timeout=PATIENCE)

    assert main.returncode == 143, errors
    assert errors.strip().splitlines()[-1] == "Error: interrupted by SIGTERM."
    assert "Run main again with the same parameters" in errors
    assert time.monotonic() - start < 60


def test_a_server_that_does_not_answer_is_refused_in_seconds_before_anything_is_lost(
    tmp_path: Path,
) -> None:
    own = Place(tmp_path).environment() | {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{find_free_port()}"}
    start = time.monotonic()

    done = subprocess.run(
        [sys.executable, "-m", "steps.train"],
        cwd=ROOT,
        env=own,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, time.monotonic() - start < 30) == (1, True)
    assert re.search(r"^Error: tracking server http\S+ does not answer", done.stderr, re.MULTILINE)
    assert run_logger.DELIVERY_TIMEOUT == 60.0
