"""Define the command ``main``."""

from __future__ import annotations

from typing import Any

import click

from mlflow_sb3.cli.options import (
    OptionalValue,
    allow_pickle_option,
    approval_option,
    boolean_option,
    config_option,
    fail_on_reject_option,
    inference_option,
    new_model_name_option,
    public_key_option,
    signing_key_option,
    state_folder_option,
)
from mlflow_sb3.cli.promotion_options import alpha_per_reign_option
from mlflow_sb3.cli.step import Step
from mlflow_sb3.cli.training_options import training_options
from mlflow_sb3.runs.signals import Interrupted
from mlflow_sb3.workflow import main_run, summary
from mlflow_sb3.workflow.step_runner import StepFailedError


@click.command(cls=Step)
@config_option
@training_options
@inference_option
@new_model_name_option
@click.option(
    "--episodes",
    default=100,
    show_default=True,
    type=click.IntRange(min=1),
    help="Number of episodes of the step evaluate.",
)
@boolean_option("--video", "Record a video of the first episode of the step evaluate.")
@click.option(
    "--gate-episodes",
    default=400,
    show_default=True,
    type=click.IntRange(min=2),
    help="Largest number of pairs of episodes of the step promote.",
)
@click.option(
    "--min-return",
    default="",
    type=OptionalValue(click.FLOAT),
    help="Mean return that the challenger must reach.  [default: no limit]",
)
@alpha_per_reign_option
@approval_option
@fail_on_reject_option
@signing_key_option
@public_key_option
@allow_pickle_option
@state_folder_option
@boolean_option("--fresh", "Start all steps anew instead of resuming an interrupted call.")
@click.pass_obj
def main(run_id: str, /, **options: Any) -> None:
    """Train an agent, register it, promote it if it is better, and evaluate the champion.

    If there is no champion, the new version is evaluated.
    """
    try:
        parameters = main_run.WorkflowOptions.from_parameters(options)
        result = main_run.run_workflow(run_id, parameters, report=click.echo)
        click.echo(summary.format_summary(result))
    except StepFailedError as error:
        raise click.ClickException(str(error)) from error
    except Interrupted:
        click.echo("Run main again with the same parameters to resume it.", err=True)
        raise
