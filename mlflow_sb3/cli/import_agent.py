"""Define the command ``import``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import mlflow

from mlflow_sb3.cli.options import (
    JsonValue,
    LowerCase,
    allow_pickle_option,
    new_model_name_option,
    signing_key_option,
)
from mlflow_sb3.cli.step import Step
from mlflow_sb3.cli.training_options import ALGORITHM_NAMES


@click.command("import", cls=Step)
@click.option(
    "--path",
    required=True,
    help="SB3's zip file, a folder of rl_zoo3 such as logs/ppo/CartPole-v1_1, or a copy of a "
    "Hugging Face repository. A relative path is relative to the project folder.",
)
@click.option(
    "--algo",
    default="",
    type=LowerCase(),
    help=f"Algorithm: {ALGORITHM_NAMES}.  [default: what the files say]",
)
@click.option(
    "--env",
    default="",
    help="Gymnasium id of the environment, or module:id to import a module first.  "
    "[default: what the files say]",
)
@click.option(
    "--env-kwargs",
    default="{}",
    show_default=True,
    type=JsonValue('{"g": 9.81}'),
    help="Keyword arguments of the environment. They override those of the files.",
)
@click.option(
    "--wrappers",
    default="[]",
    show_default=True,
    type=JsonValue('["module:Class", {"module:Class": {"argument": 1}}]'),
    help="Gymnasium wrappers. They are applied after the wrappers of the files.",
)
@new_model_name_option
@signing_key_option
@allow_pickle_option
def import_agent(
    path: str, algo: str, env: str, model_name: str, signing_key: str, **settings: Any
) -> None:
    """Import an agent of SB3, rl_zoo3 or Hugging Face, and register it as the challenger."""
    from mlflow_sb3.exchange import agent_import
    from mlflow_sb3.exchange.agent_folder import find_agent
    from mlflow_sb3.registry import names, versions
    from mlflow_sb3.registry.model_version import VERSION_TAG
    from mlflow_sb3.runs import run_name

    found = find_agent(Path(path), algo=algo or None, env_id=env or None)
    name = model_name or names.get_default_model_name(found.env_id, found.algo)
    info = agent_import.import_agent(
        path,
        algo=algo or None,
        env=env or None,
        registered_model_name=name,
        signing_key=signing_key or None,
        **settings,
    )
    version = versions.find_version(name, number=int(str(info.registered_model_version)))
    text = f"{version}, imported from {found.archive}"
    mlflow.set_tags({VERSION_TAG: str(version)} | run_name.build_tags(f"import {version}", text))
    click.echo(
        f"Registered {version} as the challenger, digest {version.digest}, "
        f"{'signed' if signing_key else 'not signed'}"
    )
