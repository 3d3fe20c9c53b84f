"""A network that refuses, delays, cuts, or answers with errors, between the steps and a real `mlflow server`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mlflow_sb3.flavor import policy_loader
from mlflow_sb3.registry import integrity, versions
from tests.faults import worker
from tests.faults.proxy import Proxy

pytestmark = pytest.mark.process

NAME = "cartpole-v1-ppo"
TINY = [
    "--algo",
    "ppo",
    "--timesteps",
    "64",
    "--preset",
    "none",
    "--hyperparams",
    '{"n_steps": 64, "batch_size": 64, "n_epochs": 1}',
]
QUICKLY = {"MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0", "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0"}
"""MLflow tries as often as by default, and waits less."""
FAULTS: dict[str, dict[str, Any]] = {
    "refused": {"refuse": 0.3},
    "delayed": {"delay": 0.1},
    "cut": {"cut": 0.3},
    "cut in mid-upload": {"cut_uploads": 0.5},
    "HTTP 500": {"reject": 0.3, "status": "500 Internal Server Error"},
    "HTTP 429": {"reject": 0.3, "status": "429 Too Many Requests"},
    "dead": {"reject": 0.9, "status": "503 Service Unavailable"},
}
TRAINED = ("delayed", "cut")
"""Faults under which `test_outage.py` trains."""
HOPELESS = ("cut", "dead")
"""Hardly any step succeeds: MLflow does not call again where an answer broke off, as some of every step do; or hardly a call is heard."""


class Steps:
    """The steps as processes, through a proxy or past it."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        own = {
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        }
        self._variables = QUICKLY | own

    def run(self, name: str, *options: str) -> str | None:
        """Run a step; returns its last line when it failed, which has to be its only one about that."""
        log = self._folder / f"{name}.txt"
        code = worker.step(name, *options, variables=self._variables, log=log)
        said = log.read_text()
        assert code in (0, 1), said
        if code == 0:
            return None
        assert said.count("Error: ") == 1, said
        assert "Traceback" not in said, said
        return said.strip().splitlines()[-1]


@pytest.fixture
def trained(mlflow_server: str, tmp_path: Path) -> str:
    """A training run, whose agent is version 1 and the champion."""
    past = Steps(tmp_path, int(mlflow_server.rpartition(":")[2]))
    assert past.run("train", *TINY, "--state-folder", str(tmp_path)) is None
    run_id = str(MlflowClient().search_runs(["0"])[0].info.run_id)
    assert past.run("log_model", "--run-id", run_id) is None
    assert (
        past.run(
            "promote",
            "--model-name",
            NAME,
            "--rule",
            "force",
            "--reason",
            "somebody has to be the first",
        )
        is None
    )
    return run_id


def assert_whole(number: int) -> None:
    """All files of a version are those that were registered, and those of the agent those that were saved."""
    with integrity.fetch_version(versions.find_version(NAME, number=number)) as folder:
        digests = json.loads((folder / "agent" / "agent.json").read_text())["digests"]
        assert policy_loader.open_policy(folder) is not None
        for name, digest in digests.items():
            assert hashlib.sha256((folder / "agent" / name).read_bytes()).hexdigest() == digest


def running() -> set[str]:
    """The runs that have not ended."""
    return {
        run.info.run_id
        for run in MlflowClient().search_runs(["0"], "attributes.status = 'RUNNING'")
    }


def test_every_step_succeeds_or_says_why_not_and_every_version_is_whole(
    mlflow_server: str, trained: str, tmp_path: Path
) -> None:
    ends = {}
    for fault, settings in FAULTS.items():
        before = running()
        with Proxy(int(mlflow_server.rpartition(":")[2])).running() as proxy:
            vars(proxy).update(settings)
            through = Steps(tmp_path, proxy.port)

            ends[fault] = [
                None
                if fault in TRAINED
                else through.run(
                    "train", *TINY, "--state-folder", str(tmp_path), "--delivery-timeout", "10"
                ),
                through.run("log_model", "--run-id", trained),
                through.run("promote", "--model-name", NAME),
                through.run("evaluate", "--model-name", NAME, "--episodes", "3"),
            ]

            assert proxy.faults + proxy.cuts > 0 or proxy.delay
        if fault not in HOPELESS:
            failed = [end for end in ends[fault] if end is not None]
            assert None in ends[fault][1:], ends[fault]
            assert len(running() - before) <= len(
                failed
            )  # the network may keep the server from hearing of a failure
    found = MlflowClient().search_model_versions(f"name='{NAME}'")
    for version in found:
        assert_whole(int(version.version))
    assert ends["delayed"] == [None] * 4
    assert None not in ends["dead"]
    assert len(found) > 1
