"""Roll over two model servers with the receiver, a real `mlflow server` and its webhook."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from mlflow import MlflowClient
from mlflow.entities.webhook import Webhook

from deploy.server.process import find_free_port
from mlflow_sb3.registry import model_version, versions
from tests import ROOT
from tests.conftest import LEVELS
from tests.processes import PROCESS_TIMEOUT
from tests.project.conftest import Place, run_server
from tests.project.readme import example

pytestmark = pytest.mark.process

SECRET = "a secret of the test"  # noqa: S105
SERVER = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "https,http",
}


@pytest.fixture
def tracking(levels: list[model_version.Version], tmp_path: Path) -> Iterator[MlflowClient]:
    """Run a tracking server on which version 2 of `levels` is the champion."""
    versions.set_alias("levels", "champion", levels[1].number)
    place = Place(tmp_path / "tracking", SERVER)
    place.folder.mkdir()
    shutil.copy(tmp_path / "levels.db", place.folder / "mlflow.db")
    uri = f"http://127.0.0.1:{find_free_port()}"
    command = [
        "mlflow",
        "server",
        "--backend-store-uri",
        place.store,
        "--default-artifact-root",
        str(place.folder),
        "--workers",
        "1",
    ]
    with run_server(place, [*command, "--port", uri.rpartition(":")[2]], f"{uri}/health"):
        yield MlflowClient(uri)


def create_webhook(client: MlflowClient, url: str) -> Webhook:
    """Run the webhook example of docs/serving.md with a URL and a secret of the test."""
    script = example("webhook").replace("https://hooks.example.org/", url)
    subprocess.run(
        [sys.executable, "-c", script.replace("the same as ROLLOVER_SECRET", SECRET)],
        env=os.environ | {"MLFLOW_TRACKING_URI": str(client.tracking_uri)},
        check=True,
    )
    (webhook,) = client.list_webhooks()
    return webhook


@contextmanager
def rolling_over(
    tracking: MlflowClient, tmp_path: Path, port: int, ports: Sequence[int]
) -> Iterator[None]:
    """Run the receiver. Enter the context when both ports serve the champion.

    The receiver asks the registry once an hour, so that only a webhook can notify it.
    """
    (tmp_path / "restart.sh").write_text(example("restart.sh"))
    (tmp_path / "served").mkdir()
    variables = {
        "MLFLOW_TRACKING_URI": str(tracking.tracking_uri),
        "ROLLOVER_SECRET": SECRET,
        "SERVED": str(tmp_path / "served"),
        "PORTS": " ".join(map(str, ports)),
        "ENV_MANAGER": "local",
        "PYTHONPATH": str(ROOT),
    }
    options = ["--model-name", "levels", "--every", "3600", "--port", str(port)]
    command = [
        sys.executable,
        "-m",
        "deploy.server.rollover",
        *options,
        "--",
        "bash",
        str(tmp_path / "restart.sh"),
    ]
    with run_server(Place(tmp_path, variables), command, f"http://127.0.0.1:{ports[-1]}/ping"):
        yield


def request_action(port: int) -> int | None:
    """Return the action of the server at a port, or None if the server is unavailable."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROCESS_TIMEOUT)
    try:
        connection.request(
            "POST",
            "/invocations",
            json.dumps({"inputs": [[0.0]]}),
            {"Content-Type": "application/json"},
        )
        (action,) = json.load(connection.getresponse())["predictions"]
    except (ConnectionError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return int(action)


def request_through_proxy(ports: Sequence[int]) -> int | None:
    """Return the action behind a proxy that uses the next server if one is unavailable.

    The first server is asked again at the end, because it may be available by then.
    """
    return next(
        (action for action in map(request_action, [*ports, ports[0]]) if action is not None), None
    )


def test_a_move_of_the_alias_replaces_the_served_version_without_a_gap(
    tracking: MlflowClient, tmp_path: Path
) -> None:
    port, *ports = (find_free_port() for _ in range(3))
    webhook = create_webhook(tracking, f"http://127.0.0.1:{port}/")

    with rolling_over(tracking, tmp_path, port, ports):
        tried = tracking.test_webhook(webhook.webhook_id)
        before = [request_action(each) for each in ports]
        tracking.set_registered_model_alias("levels", "champion", "5")
        answers: list[int | None] = []
        deadline = time.monotonic() + PROCESS_TIMEOUT
        while [request_action(each) for each in ports] != [LEVELS[4]] * 2:
            assert time.monotonic() < deadline, answers
            answers.append(request_through_proxy(ports))
            time.sleep(0.1)

    assert (tried.success, tried.response_status) == (True, 204)
    assert before == [LEVELS[1]] * 2
    assert set(answers) == {LEVELS[1], LEVELS[4]}
