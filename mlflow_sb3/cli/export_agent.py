"""Define the command ``export``."""

from __future__ import annotations

import click
import mlflow

from mlflow_sb3.cli.options import public_key_option
from mlflow_sb3.cli.step import Step


@click.command("export", cls=Step)
@click.option(
    "--model-uri",
    required=True,
    help="URI of the model, such as models:/cartpole-v1-dqn@champion.",
)
@click.option(
    "--folder",
    required=True,
    help="New or empty folder. A relative path is relative to the project folder.",
)
@public_key_option
def export_agent(model_uri: str, folder: str, public_key: str) -> None:
    """Write a logged agent to a folder for rl_zoo3 and Hugging Face."""
    from mlflow_sb3.exchange import agent_export
    from mlflow_sb3.runs import run_name

    agent_export.export_agent(model_uri, folder, public_key=public_key or None)
    mlflow.set_tags(run_name.build_tags(f"export {model_uri}"))
    click.echo(f"Exported {model_uri} to {folder}")
