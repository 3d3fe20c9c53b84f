from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from mlflow_sb3.runs import run_lock

HOLDER = """
import sys, time
from mlflow_sb3.runs import run_lock
with run_lock.hold_run_lock(sys.argv[1]):
    print("ready", flush=True)
    time.sleep(3600)
"""


def test_a_run_is_locked_inside_the_context_and_has_no_file_afterwards() -> None:
    with run_lock.hold_run_lock("run"):
        assert run_lock.is_run_locked("run") is True

    assert run_lock.is_run_locked("run") is None
    assert not run_lock.get_lock_path("run").exists()


def test_a_second_process_of_a_run_does_not_delete_the_lock_of_the_first() -> None:
    command = [sys.executable, "-c", HOLDER, "run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with run_lock.hold_run_lock("run"):
            pass
        was_locked = run_lock.is_run_locked("run")
        process.kill()

    assert was_locked is True


def test_a_killed_process_releases_its_lock() -> None:
    command = [sys.executable, "-c", HOLDER, "run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        was_locked = run_lock.is_run_locked("run")
        process.kill()

    assert was_locked is True
    assert run_lock.is_run_locked("run") is False
    run_lock.delete_lock_file("run")
    assert run_lock.is_run_locked("run") is None


def test_the_lock_of_another_machine_with_the_same_state_folder_is_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with run_lock.hold_run_lock("run"):
        monkeypatch.setattr(platform, "node", lambda: "another machine")
        assert run_lock.is_run_locked("run") is None
        monkeypatch.undo()


def test_the_context_does_nothing_if_the_file_cannot_be_locked() -> None:
    path = run_lock.get_lock_path("run")
    path.mkdir(parents=True)

    with run_lock.hold_run_lock("run"):
        assert run_lock.is_run_locked("run") is None
