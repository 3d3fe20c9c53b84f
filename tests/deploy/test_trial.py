"""The server to try with, as a process on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
import requests
from click import ClickException

from deploy.server import process
from deploy.server.trial import TrialServer
from tests import ROOT
from tests.processes import PATIENCE, children, command_line, is_over

pytestmark = pytest.mark.postgres


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploy.server.trial", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def processes(text: str) -> list[str]:
    """Command lines on this machine that contain a text."""
    lines = [" ".join(command_line(folder.name)) for folder in Path("/proc").glob("[0-9]*")]
    return [line for line in lines if text in line]


def permissions(path: Path) -> int:
    """Of a file; none of one that is gone: other tests add users meanwhile, whose passwords have another name while they are written."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return 0


def test_who_does_not_log_in_is_refused_and_the_admin_is_not(trial: TrialServer) -> None:
    default = f"{trial.uri}/api/2.0/mlflow/experiments/get?experiment_id=0"

    assert requests.get(default, timeout=PATIENCE).status_code == 401
    assert (
        requests.get(default, auth=("admin", "not the password"), timeout=PATIENCE).status_code
        == 401
    )
    assert (
        requests.get(default, auth=("admin", trial.read_password()), timeout=PATIENCE).json()[
            "experiment"
        ]["name"]
        == "Default"
    )


def test_secrets_lie_in_files_of_the_owner_alone_and_nowhere_else(trial: TrialServer) -> None:
    secrets = [trial.read_password(), trial.store.secret]

    assert [path.name for path in trial.folder.iterdir() if permissions(path) & 0o077] == []
    assert trial.folder.stat().st_mode & 0o077 == 0
    for secret in secrets:
        assert processes(secret) == []
        assert [
            path.name for path in trial.folder.glob("*.log") if secret in path.read_text()
        ] == []


def test_a_folder_with_a_running_server_is_refused_in_one_line(trial: TrialServer) -> None:
    done = run("--folder", str(trial.folder))

    assert done.returncode == 1
    assert (
        done.stderr
        == f"Error: a server runs in {trial.folder} at {trial.uri} already; end it, or give another folder.\n"
    )


def test_a_port_that_is_taken_is_refused_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--folder", str(tmp_path / "trial"), "--port", str(port))

    assert done.returncode == 1
    assert (
        done.stderr
        == f"Error: port {port} is taken (Address already in use); give another one by --port.\n"
    )


def test_a_server_that_does_not_start_says_its_last_words_and_where_the_others_are(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", "print('what was tried'); print('no database')"]
    log = tmp_path / "failing.log"

    with (
        pytest.raises(
            ClickException,
            match=rf"failing did not start; its last words are 'no database', and {log} has them all",
        ),
        process.run_server(command, ready=lambda: False, log=log, variables={}),
    ):
        pass


class Told(subprocess.Popen[bytes]):
    """A process whose starter is told to stop before it knows the process."""

    started: ClassVar[list[int]] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.started.append(self.pid)
        signal.raise_signal(signal.SIGINT)


def test_who_is_told_to_stop_in_the_moment_of_starting_a_server_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", Told)

    with (
        pytest.raises(KeyboardInterrupt),
        process.run_server(
            ["sleep", "3600"],
            ready=lambda: True,
            log=tmp_path / "sleeping.log",
            variables=os.environ,
        ),
    ):
        pass

    assert [is_over(pid) for pid in Told.started] == [True]


def test_what_is_ended_while_it_starts_leaves_no_process(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "deploy.server.trial",
        "--folder",
        str(tmp_path),
        "--port",
        str(process.find_free_port()),
    ]
    deadline = time.monotonic() + process.START_TIMEOUT
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as started:
        while (
            not (tmp_path / "mlflow.log").exists() or len(children(started.pid)) < 3
        ):  # the log is there before its process is
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        begun = children(started.pid)
        started.send_signal(signal.SIGTERM)
        said = started.communicate(timeout=PATIENCE)[1]

    assert started.returncode == 0
    assert said == "Ended, and all it held with it.\n"
    assert len(begun) == 3
    assert [pid for pid in begun if Path(f"/proc/{pid}").exists()] == []
