from __future__ import annotations

import os
import subprocess
import sys

from mlflow_sb3.runs import parent_process
from tests import ROOT

PROGRAM = "from mlflow_sb3.runs import parent_process; print(*parent_process.INITIAL_PARENT_PIDS)"


def test_the_parent_is_this_process() -> None:
    completed = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert completed.stdout.split() == [str(os.getpid())]


def test_the_parent_of_a_shell_comes_second() -> None:
    command = f'"{sys.executable}" -c "{PROGRAM}"; true'  # bash replaces itself without the `true`

    completed = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    )

    shell, parent = completed.stdout.split()
    assert parent == str(os.getpid())
    assert shell != parent


def test_the_parents_do_not_change() -> None:
    assert parent_process.get_parent_pids() == parent_process.INITIAL_PARENT_PIDS
