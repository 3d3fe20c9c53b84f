"""Scripts of users as processes: signals, errors, and a tracking server that goes away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tests import ROOT
from tests.faults.test_outage import OUTAGE_SECONDS, Server
from tests.processes import PROCESS_TIMEOUT, wait_until

pytestmark = pytest.mark.process

CALLBACK_SCRIPT = """
from stable_baselines3 import PPO
from mlflow_sb3 import MlflowCallback

model = PPO("MlpPolicy", "CartPole-v1", n_steps=64, batch_size=64, n_epochs=1, device="cpu")
model.learn({timesteps}, callback=[MlflowCallback(log_model=False), *callbacks])
"""
AUTOLOG_SCRIPT = """
import mlflow_sb3
from stable_baselines3 import PPO

mlflow_sb3.autolog(log_models=False, checkpoint=False)
model = PPO("MlpPolicy", "CartPole-v1", n_steps=64, batch_size=64, n_epochs=1, device="cpu")
model.learn({timesteps}, callback=callbacks)
"""
SLOW = """
import time
from stable_baselines3.common.callbacks import BaseCallback

class Slow(BaseCallback):
    def _on_rollout_end(self):
        time.sleep({seconds})

    def _on_step(self):
        return True

callbacks = [Slow()]
"""
FAILING = """
from stable_baselines3.common.callbacks import ConvertCallback

def fail(values, _):
    assert values["self"].num_timesteps < 100
    return True

callbacks = [ConvertCallback(fail)]
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A running server. It is killed after the test."""
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


def start(script: str, server: Server) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=server.variables | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def find_run(client: MlflowClient) -> Run | None:
    runs = client.search_runs(["0"], max_results=1)
    return runs[0] if runs else None


def has_metrics(client: MlflowClient) -> bool:
    run = find_run(client)
    return run is not None and "rollout/ep_rew_mean" in run.data.metrics


def list_checkpoints(client: MlflowClient, run: Run) -> list[str]:
    return [file.path for file in client.list_artifacts(run.info.run_id, "checkpoints")]


@pytest.mark.parametrize("script", [CALLBACK_SCRIPT, AUTOLOG_SCRIPT], ids=["callback", "autolog"])
def test_curves_are_seen_while_the_script_trains_and_ctrl_c_ends_the_run_as_failed(
    script: str, server: Server
) -> None:
    client = MlflowClient(server.uri)
    code = SLOW.format(seconds=0.05) + script.format(timesteps=10**6)
    with start(code, server) as process:
        wait_until(lambda: has_metrics(client) or process.poll() is not None)
        run = find_run(client)
        assert run is not None
        assert run.info.status == "RUNNING", process.communicate()
        assert run.data.params["sb3/env"] == "CartPole-v1"

        os.kill(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=PROCESS_TIMEOUT)

    run = client.get_run(run.info.run_id)
    assert "KeyboardInterrupt" in stderr
    assert run.info.status == "FAILED"
    assert len(list_checkpoints(client, run)) == 1


def test_an_error_of_the_environment_ends_the_run_as_failed_when_the_script_exits(
    server: Server,
) -> None:
    with start(FAILING + CALLBACK_SCRIPT.format(timesteps=1000), server) as process:
        _, stderr = process.communicate(timeout=PROCESS_TIMEOUT)

    client = MlflowClient(server.uri)
    run = find_run(client)
    assert process.returncode == 1
    assert stderr.strip().endswith("AssertionError")
    assert run is not None
    assert run.info.status == "FAILED"
    assert list_checkpoints(client, run) == ["checkpoints/step_000000100.zip"]


def test_every_point_of_a_training_during_an_outage_is_logged_once(server: Server) -> None:
    client = MlflowClient(server.uri)
    n_rollouts = 80
    code = SLOW.format(seconds=(15 + OUTAGE_SECONDS) / n_rollouts)
    code += CALLBACK_SCRIPT.format(timesteps=64 * n_rollouts)
    with start(code, server) as process:
        wait_until(lambda: has_metrics(client) or process.poll() is not None)
        server.kill()
        restart = threading.Timer(OUTAGE_SECONDS, server.start)
        restart.start()
        _, stderr = process.communicate(timeout=PROCESS_TIMEOUT)
        restart.join()

    run = find_run(client)
    assert process.returncode == 0, stderr
    assert run is not None
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "time/total_timesteps")
    assert [point.step for point in history] == [64 * (n + 1) for n in range(n_rollouts)]
    assert [point.value for point in history] == [point.step for point in history]
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) == n_rollouts
