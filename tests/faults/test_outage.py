"""Training while an `mlflow server` is down, or behind a network that delays or cuts answers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
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
from mlflow_sb3.cli.step import Step
from mlflow_sb3.envs import env_spec
from mlflow_sb3.runs import signals
from mlflow_sb3.tracking.metric_writer import MetricWriter
from mlflow_sb3.tracking.run_logger import DELIVERY_TIMEOUT, MetricPoint, RunLogger
from mlflow_sb3.training import loop
from mlflow_sb3.training.provenance import POLICY_DIGEST_TAG
from tests import ROOT
from tests.faults.proxy import Proxy
from tests.faults.resume import Machine, list_differing_keys
from tests.processes import PROCESS_TIMEOUT, wait_until
from tests.project.conftest import Place

pytestmark = pytest.mark.process

OUTAGE_SECONDS = float(os.environ.get("SERVER_AWAY", "20"))
"""How long the server is down, in seconds. The environment variable ``SERVER_AWAY`` changes it."""
MAX_CALL_SECONDS = 0.1
"""Longest time that a call of ``RunLogger`` may block the training, in seconds."""
SHORT_TRAINING = ("--timesteps", "300")
SMALL_PPO = {"n_steps": 64, "batch_size": 64, "n_epochs": 1}
FAST_RETRIES = {
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
}
"""Let MLflow retry as often as by default, but without waiting."""
ARTIFACTS = {"agent", "candidates.json", "training.json"}
"""Artifacts of every finished training run."""


class Server:
    """An `mlflow server` with its own store. It can be killed and restarted on the same port."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(folder, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
        self.port = find_free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables of a process that uses this server."""
        return self.place.environment() | {"MLFLOW_TRACKING_URI": self.uri}

    def start(self) -> None:
        """Start the server, and wait until it is ready."""
        command = ["mlflow", "server", "--backend-store-uri", self.place.store]
        command += ["--artifacts-destination", str(self.place.folder / "served")]
        command += ["--workers", "1", "--port", str(self.port)]
        with (self.place.folder / "server.txt").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.place.folder,
                env=self.place.environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(lambda: is_reachable(f"{self.uri}/health"))

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and its workers."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """Kill the server and its workers."""
        if self._process is not None:
            self.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A running server. It is killed after the test."""
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


class SlowMetricWriter(MetricWriter):
    """Takes some time for each rollout, so that the training lasts as long as the outage."""

    def __init__(self, run_logger: RunLogger, seconds: float) -> None:
        super().__init__(run_logger)
        self._seconds = seconds

    def write(self, *args: Any, **kwargs: Any) -> None:
        super().write(*args, **kwargs)
        time.sleep(self._seconds)


class RecordingRunLogger(RunLogger):
    """Remembers all metric points."""

    def __init__(self, run_id: str, folder: Path) -> None:
        super().__init__(run_id, folder, delivery_timeout=PROCESS_TIMEOUT)
        self.points: list[MetricPoint] = []

    def log_metrics(self, points: Iterable[MetricPoint]) -> None:
        listed = list(points)
        self.points += listed
        super().log_metrics(listed)


@contextmanager
def use_tracking_uri(uri: str) -> Iterator[None]:
    """Set the tracking URI of this process inside the context."""
    previous_uri = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    yield
    mlflow.set_tracking_uri(previous_uri)


def train_slowly(run_id: str, folder: Path, seconds: float) -> RecordingRunLogger:
    """Train for some seconds, and log a file at the end."""
    n_rollouts = 80
    cartpole = env_spec.compose_spec("CartPole-v1", kwargs={"max_episode_steps": 10})
    with RecordingRunLogger(run_id, folder) as run_logger:
        loop.train(
            cartpole,
            "ppo",
            timesteps=64 * n_rollouts,
            hyperparams=SMALL_PPO,
            writers=[SlowMetricWriter(run_logger, seconds / n_rollouts)],
        )
        run_logger.log_file("agent/agent.zip", b"the agent")
    return run_logger


def assert_run_is_complete(
    client: MlflowClient, run_id: str, run_logger: RecordingRunLogger
) -> None:
    """Check that the run finished with each point once, and that no logging call was slow."""
    stored = [
        MetricPoint(key, point.value, point.timestamp, point.step)
        for key in {point.key for point in run_logger.points}
        for point in client.get_metric_history(run_id, key)
    ]
    assert sorted(stored) == sorted(set(run_logger.points))
    assert len(stored) > 500
    assert client.get_run(run_id).info.status == "FINISHED"
    assert run_logger.longest_call_seconds < MAX_CALL_SECONDS


def list_artifacts(client: MlflowClient, run: Run) -> set[str]:
    return {file.path for file in client.list_artifacts(run.info.run_id)}


def find_last_run(client: MlflowClient) -> Run:
    return client.search_runs(["0"], order_by=["attributes.start_time DESC"], max_results=1)[0]


def test_a_training_during_an_outage_is_complete_and_never_blocked(
    server: Server, tmp_path: Path, record_property: Any
) -> None:
    client = MlflowClient(server.uri)
    run_id = client.create_run("0").info.run_id
    with use_tracking_uri(server.uri):
        kill, restart = (
            threading.Timer(4, server.kill),
            threading.Timer(4 + OUTAGE_SECONDS, server.start),
        )
        kill.start()
        restart.start()
        run_logger = train_slowly(run_id, tmp_path / "run", 10 + OUTAGE_SECONDS)
        restart.join()

    assert_run_is_complete(client, run_id, run_logger)
    record_property("longest_call_ms", 1000 * run_logger.longest_call_seconds)


@pytest.mark.parametrize(
    ("delay", "cut_probability"), [(5.0, 0.0), (0.0, 0.5)], ids=["slow", "cut"]
)
def test_a_training_behind_a_faulty_network_is_complete_and_never_blocked(
    server: Server, tmp_path: Path, delay: float, cut_probability: float
) -> None:
    client = MlflowClient(server.uri)
    run_id = client.create_run("0").info.run_id
    with (
        Proxy(server.port).running() as proxy,
        use_tracking_uri(f"http://127.0.0.1:{proxy.port}"),
    ):
        proxy.delay, proxy.cut_probability = delay, cut_probability
        run_logger = train_slowly(run_id, tmp_path / "run", 20)

    assert_run_is_complete(client, run_id, run_logger)
    assert proxy.answer_count > 2
    assert cut_probability == 0.0 or proxy.cut_count > 1


@pytest.fixture
def reference(tmp_path: Path) -> tuple[Machine, Run]:
    """A machine with a local store, and a short training on it without faults."""
    (tmp_path / "reference").mkdir()
    machine = Machine(tmp_path / "reference")
    return machine, machine.train(*SHORT_TRAINING)


def assert_same_training(reference: tuple[Machine, Run], machine: Machine, run: Run) -> None:
    """Check that a run finished with the metrics and the weights of the reference."""
    reference_machine, reference_run = reference
    assert run.info.status == "FINISHED"
    assert "error" not in run.data.tags
    expected = reference_machine.read_history(reference_run)
    assert list_differing_keys(expected, machine.read_history(run)) == []
    assert run.data.tags[POLICY_DIGEST_TAG] == reference_run.data.tags[POLICY_DIGEST_TAG]


def test_a_step_behind_a_slow_network_trains_the_same_agent(
    server: Server, tmp_path: Path, reference: tuple[Machine, Run]
) -> None:
    folder = tmp_path / "faulty"
    folder.mkdir()
    with Proxy(server.port).running() as proxy:
        proxy.delay = 5.0
        Machine(folder, f"http://127.0.0.1:{proxy.port}").train(*SHORT_TRAINING)

    machine = Machine(folder, server.uri)
    assert_same_training(reference, machine, machine.last_run())


def test_a_step_whose_connections_are_cut_is_complete_or_prints_the_deliver_command(
    server: Server, tmp_path: Path, reference: tuple[Machine, Run]
) -> None:
    folder = tmp_path / "faulty"
    folder.mkdir()
    with Proxy(server.port).running() as proxy:
        faulty = Machine(folder, f"http://127.0.0.1:{proxy.port}", variables=FAST_RETRIES)
        step = faulty.start(*SHORT_TRAINING, "--delivery-timeout", "1")
        wait_until(
            lambda: step.poll() is not None or list(folder.glob("state/mlflow-sb3/*/journal.jsonl"))
        )
        proxy.cut_probability = 0.5
        exit_code = step.wait()
        proxy.cut_probability = 0.0
        output = (folder / "log.txt").read_text()
        undelivered_folder = find_undelivered_folder(output)
        assert exit_code == (0 if undelivered_folder is None else 1), output
        if undelivered_folder is not None:
            deliver(undelivered_folder, server)

    machine = Machine(folder, server.uri)
    run = machine.last_run()
    assert_same_training(reference, machine, run)
    assert list_artifacts(machine.client, run) >= ARTIFACTS
    assert not (folder / "state" / "mlflow-sb3" / run.info.run_id).exists()
    assert proxy.cut_count > 1


def find_undelivered_folder(output: str) -> str | None:
    """Return the folder in the command that an ``UndeliveredError`` prints, if there is one."""
    match = re.search(
        r"^Error: Tracking server \S+ did not receive everything .*"
        r" run: python -m mlflow_sb3 deliver (\S+)$",
        output,
        re.MULTILINE,
    )
    return None if match is None else match[1]


def deliver(folder: str, server: Server) -> None:
    """Run the step that delivers the journal of a folder."""
    step = subprocess.run(
        [sys.executable, "-m", "mlflow_sb3", "deliver", folder],
        cwd=ROOT,
        env=server.variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert step.returncode == 0, step.stderr


def test_the_deliver_command_completes_a_step_whose_server_stays_down(server: Server) -> None:
    command = [sys.executable, "-m", "steps.train", "--timesteps", "12000", "--eval-budget", "1e6"]
    command += ["--delivery-timeout", "3"]
    client = MlflowClient(server.uri)
    with subprocess.Popen(
        command, cwd=ROOT, env=server.variables, stderr=subprocess.PIPE, text=True
    ) as step:
        wait_until(
            lambda: any(
                "rollout/ep_rew_mean" in run.data.metrics
                for run in client.search_runs(["0"], max_results=1)
            )
        )
        server.kill()
        _, stderr = step.communicate(timeout=PROCESS_TIMEOUT)
    folder = find_undelivered_folder(stderr.strip().splitlines()[-1])
    assert step.returncode == 1
    assert folder is not None, stderr
    assert (Path(folder) / "files" / "agent" / "agent.zip").exists()
    server.start()

    deliver(folder, server)

    run = find_last_run(client)
    assert (run.info.status, "error" in run.data.tags) == ("FINISHED", False)
    assert list_artifacts(client, run) >= ARTIFACTS
    subprocess.run(command, cwd=ROOT, env=server.variables, capture_output=True, check=True)
    uninterrupted = find_last_run(client)
    for key in uninterrupted.data.metrics:
        expected, delivered = (
            sorted(point.step for point in client.get_metric_history(one.info.run_id, key))
            for one in (uninterrupted, run)
        )
        assert delivered == expected, key
    assert run.data.tags[POLICY_DIGEST_TAG] == uninterrupted.data.tags[POLICY_DIGEST_TAG]


def run_step_behind_proxy(
    server: Server, end_step: Callable[[Proxy], object]
) -> tuple[Result, Proxy, list[Run]]:
    """Run a step that only calls ``end_step``, in this process.

    Returns:
        The result of the step, its proxy, and all runs of its experiment.
    """
    with (
        Proxy(server.port).running() as proxy,
        use_tracking_uri(f"http://127.0.0.1:{proxy.port}"),
    ):
        experiment = mlflow.set_experiment("done")
        step = click.command(cls=Step)(lambda: end_step(proxy))
        result = CliRunner().invoke(step)
    return result, proxy, MlflowClient(server.uri).search_runs([experiment.experiment_id])


def test_a_step_finishes_its_run_though_answers_are_truncated(server: Server) -> None:
    result, proxy, runs = run_step_behind_proxy(
        server, lambda proxy: setattr(proxy, "answers_to_truncate", 5)
    )

    assert (result.exit_code, proxy.answers_to_truncate) == (0, 0), result.output
    assert [run.info.status for run in runs] == ["FINISHED"]


def test_a_step_gives_up_after_a_minute_of_internal_server_errors(server: Server) -> None:
    def log_model(proxy: Proxy) -> None:
        proxy.reject_path, proxy.reject_probability = b"/logged-models", 1.0
        mlflow.initialize_logged_model(name="agent")

    start = time.monotonic()
    result, proxy, runs = run_step_behind_proxy(server, log_model)

    assert (result.exit_code, result.stderr.count("Error: ")) == (1, 1), result.output
    assert proxy.fault_count == 7, result.output
    assert 30 < time.monotonic() - start < 100
    assert [run.info.status for run in runs] == ["FAILED"]


def test_a_signal_at_the_end_of_a_step_leaves_one_killed_run(server: Server) -> None:
    def slow_down_and_send_signal(proxy: Proxy) -> None:
        proxy.delay = 1.0
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()

    result, _, (run,) = run_step_behind_proxy(server, slow_down_and_send_signal)

    assert result.exit_code == 143, result.output
    assert (run.info.status, run.data.tags[signals.INTERRUPTED_TAG]) == ("KILLED", "SIGTERM")


def test_main_stops_within_a_minute_of_a_signal_during_an_outage(server: Server) -> None:
    state_folder = server.place.folder / "state"
    variables = server.variables | {"XDG_STATE_HOME": str(state_folder)}
    command = [sys.executable, "-m", "steps.main", "--timesteps", "100000"]
    with subprocess.Popen(
        command, cwd=ROOT, env=variables, stderr=subprocess.PIPE, text=True
    ) as main:
        wait_until(lambda: list(state_folder.glob("mlflow-sb3/*/snapshots/*.snapshot")))
        server.kill()
        start = time.monotonic()
        main.terminate()
        _, stderr = main.communicate(timeout=PROCESS_TIMEOUT)

    assert main.returncode == 143, stderr
    assert stderr.strip().splitlines()[-1] == "Error: interrupted by SIGTERM."
    assert "Run main again with the same parameters" in stderr
    assert time.monotonic() - start < 60


def test_train_fails_within_seconds_if_the_server_does_not_answer(tmp_path: Path) -> None:
    uri = f"http://127.0.0.1:{find_free_port()}"
    start = time.monotonic()

    step = subprocess.run(
        [sys.executable, "-m", "steps.train"],
        cwd=ROOT,
        env=Place(tmp_path).environment() | {"MLFLOW_TRACKING_URI": uri},
        capture_output=True,
        text=True,
        check=False,
    )

    assert step.returncode == 1
    assert time.monotonic() - start < 30
    message = r"^Error: tracking server http\S+ does not answer"
    assert re.search(message, step.stderr, re.MULTILINE | re.IGNORECASE)


def test_a_run_waits_a_minute_for_its_server_by_default() -> None:
    assert DELIVERY_TIMEOUT == 60.0
