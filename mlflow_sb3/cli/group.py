"""Define the console command ``mlflow-sb3``, which runs one step."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from mlflow_sb3 import __version__

SHORT_HELP = {
    "train": "Train an agent, or resume an interrupted training.",
    "log-model": "Log the agent of a training run, and register it.",
    "import": "Import an agent of SB3, rl_zoo3 or Hugging Face.",
    "export": "Write an agent to a folder for rl_zoo3 and Hugging Face.",
    "promote": "Promote a version if it is better than the champion.",
    "rollback": "Make the previous champion the champion again.",
    "evaluate": "Play new episodes with a registered agent.",
    "reproduce": "Repeat a training, and compare the weights.",
    "deliver": "Send data that the server did not receive during a training.",
}
"""What each command does. The help of the group shows it without importing the commands."""

_MODULES = {"import": "import_agent", "export": "export_agent"}
"""Modules of the commands whose name is no name of a function."""
_EPILOG = "The whole workflow needs the project: mlflow run <folder or git URI> -e main"


@click.group(
    "mlflow-sb3",
    # Placeholders for the help. ``main`` imports the command that is called.
    commands={name: click.Command(name, help=text) for name, text in SHORT_HELP.items()},
    epilog=_EPILOG,
)
@click.version_option(__version__)
def group() -> None:
    """Train, register, promote and evaluate Stable-Baselines3 agents with MLflow.

    Each command runs inside an MLflow run. It takes the same options as the entry point of the
    MLflow Project.
    """


def load_command(name: str) -> click.Command:
    """Import a command.

    Args:
        name: Key of ``SHORT_HELP``.
    """
    name = _MODULES.get(name, name.replace("-", "_"))
    command: click.Command = getattr(importlib.import_module(f"{__package__}.{name}"), name)
    return command


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the first argument names, as ``python -m steps.<name>`` does.

    Args:
        arguments: Arguments of the command line. By default, those of this process.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments and arguments[0] in SHORT_HELP:
        name, *options = arguments
        load_command(name)(args=options, prog_name=f"mlflow-sb3 {name}")
    else:
        group(args=arguments, prog_name="mlflow-sb3")
