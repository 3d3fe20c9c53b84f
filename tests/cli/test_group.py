from __future__ import annotations

import sys

import click
import pytest

import mlflow_sb3
from mlflow_sb3.cli import group
from tests.cli.commands import get_last_run
from tests.test_structure import COMMANDS, run_python


def test_the_group_has_every_command_but_main() -> None:
    names = {name.replace("_", "-") for name in COMMANDS} - {"main"} | {"deliver"}

    assert set(group.SHORT_HELP) == names


@pytest.mark.parametrize("name", group.SHORT_HELP)
def test_a_command_of_the_group_is_that_of_the_step(name: str) -> None:
    command = group.load_command(name)

    assert isinstance(command, click.Command)
    assert command is COMMANDS.get(name.replace("-", "_"), command)


@pytest.mark.process
def test_the_help_of_the_group_imports_no_command() -> None:
    loaded = run_python(
        "import sys\n"
        "from mlflow_sb3.cli.group import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'mlflow', 'numpy'} & set(sys.modules)))"
    )

    assert "log-model  Log the agent of a training run, and register it." in loaded
    assert loaded.endswith("[]\n")


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        group.main(["evaluat"])

    assert "No such command 'evaluat'" in capsys.readouterr().err


@pytest.mark.usefixtures("store")
def test_wrong_usage_is_one_line_and_fails_the_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["mlflow-sb3", "evaluate", "--episodes", "none"])

    with pytest.raises(SystemExit, match="2"):
        group.load_command("evaluate").main(["--episodes", "none"])

    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("Error: Invalid value for '--episodes'")
    assert get_last_run().info.status == "FAILED"


def test_completion_finds_the_public_functions() -> None:
    assert {"log_model", "load_policy"} <= set(dir(mlflow_sb3))
    assert all(hasattr(mlflow_sb3, name) for name in dir(mlflow_sb3))
