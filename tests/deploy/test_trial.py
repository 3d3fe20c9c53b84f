"""Tests of the trial server as a process."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from deploy.server import process
from deploy.server.trial import TrialServer
from tests import ROOT
from tests.processes import PROCESS_TIMEOUT, list_children, read_command_line

pytestmark = pytest.mark.postgres

COMMAND = [sys.executable, "-m", "deploy.server.trial"]


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PROCESS_TIMEOUT,
        check=False,
    )


def command_lines_with(text: str) -> list[str]:
    """Return the command lines of all processes on this machine that contain a text."""
    lines = [" ".join(read_command_line(folder.name)) for folder in Path("/proc").glob("[0-9]*")]
    return [line for line in lines if text in line]


def file_mode(path: Path) -> int:
    """Return the mode of a file, or 0 if it is gone.

    Other tests add users meanwhile, and a new password is first written to a temporary file.
    """
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return 0


def test_only_a_login_with_the_password_is_accepted(trial: TrialServer) -> None:
    url = f"{trial.uri}/api/2.0/mlflow/experiments/get?experiment_id=0"
    wrong, right = ("admin", "not the password"), ("admin", trial.read_password())

    assert requests.get(url, timeout=PROCESS_TIMEOUT).status_code == 401
    assert requests.get(url, auth=wrong, timeout=PROCESS_TIMEOUT).status_code == 401
    experiment = requests.get(url, auth=right, timeout=PROCESS_TIMEOUT).json()["experiment"]
    assert experiment["name"] == "Default"


def test_secrets_are_only_in_files_that_the_owner_may_read(trial: TrialServer) -> None:
    secrets = [trial.read_password(), trial.store.secret]

    assert [path.name for path in trial.folder.iterdir() if file_mode(path) & 0o077] == []
    assert trial.folder.stat().st_mode & 0o077 == 0
    for secret in secrets:
        assert command_lines_with(secret) == []
        logs = [path.name for path in trial.folder.glob("*.log") if secret in path.read_text()]
        assert logs == []


def test_a_folder_of_a_running_server_is_refused(trial: TrialServer) -> None:
    done = run_command("--folder", str(trial.folder))

    assert done.returncode == 1
    assert done.stderr == (
        f"Error: A trial server already uses {trial.folder}. It listens at {trial.uri}. "
        "Stop it or give another --folder.\n"
    )


def test_an_occupied_port_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        done = run_command("--folder", str(tmp_path / "trial"), "--port", str(port))

    assert done.returncode == 1
    assert done.stderr == (
        f"Error: Cannot listen on port {port}: Address already in use. Give another --port.\n"
    )


def test_sigterm_during_the_start_leaves_no_process(tmp_path: Path) -> None:
    port = str(process.find_free_port())
    command = [*COMMAND, "--folder", str(tmp_path), "--port", port]
    deadline = time.monotonic() + process.START_TIMEOUT
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as starting:
        # The log file is created shortly before the process that writes to it.
        while not (tmp_path / "mlflow.log").exists() or len(list_children(starting.pid)) < 3:
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        started = list_children(starting.pid)
        starting.send_signal(signal.SIGTERM)
        stderr = starting.communicate(timeout=PROCESS_TIMEOUT)[1]

    assert starting.returncode == 0
    assert stderr == "The trial server has stopped and its data are deleted.\n"
    assert len(started) == 3
    assert [pid for pid in started if Path(f"/proc/{pid}").exists()] == []
