"""Tests of server processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from click import ClickException

from deploy.server import process
from tests.processes import has_ended, wait_until


def test_a_server_that_ends_early_is_reported_with_its_last_line_and_its_log(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", "print('a first line'); print('no database')"]
    log = tmp_path / "failing.log"
    message = rf"failing did not start\. Its last line is 'no database'\. See {log} for the rest"

    with (
        pytest.raises(ClickException, match=message),
        process.run_server(command, ready=lambda: False, log=log, variables={}),
    ):
        pass


class InterruptedPopen(subprocess.Popen[bytes]):
    """A process whose parent gets SIGINT before it knows the process id."""

    started: ClassVar[list[int]] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.started.append(self.pid)
        signal.raise_signal(signal.SIGINT)


@pytest.mark.process
def test_a_signal_during_the_start_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", InterruptedPopen)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's "&" ignores it

    with (
        pytest.raises(KeyboardInterrupt, match=r"^$"),
        process.run_server(
            ["sleep", "3600"],
            ready=lambda: True,
            log=tmp_path / "sleeping.log",
            variables=os.environ,
        ),
    ):
        pass

    assert [has_ended(pid) for pid in InterruptedPopen.started] == [True]


def test_the_end_of_the_context_ends_the_server_and_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "child.pid"
    command = ["sh", "-c", f"sleep 3600 & echo $! > {pid_file}; wait"]

    with process.run_server(
        command,
        ready=lambda: pid_file.exists() and pid_file.read_text() != "",
        log=tmp_path / "server.log",
        variables=os.environ,
    ):
        child = int(pid_file.read_text())
        assert not has_ended(child)

    wait_until(lambda: has_ended(child))


def test_a_port_without_a_listener_is_not_reachable() -> None:
    assert not process.is_reachable(f"http://127.0.0.1:{process.find_free_port()}/")
