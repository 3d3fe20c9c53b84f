"""Define the command ``train``."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from mlflow_sb3.cli.options import config_option
from mlflow_sb3.cli.step import Step
from mlflow_sb3.cli.training_options import settings_options, training_options


@click.command(cls=Step)
@config_option
@training_options
@settings_options
@click.pass_context
def train(
    context: click.Context,
    /,
    resume: str,
    snapshot_every: int | None,
    state_folder: str,
    delivery_timeout: float,
    signing_key: str,
    public_key: str,
    allow_pickle: bool,
    **options: Any,
) -> None:
    """Train an agent with Stable-Baselines3 and keep its best checkpoint."""
    from mlflow_sb3.tracking.file_trust import FileTrust
    from mlflow_sb3.training import train_step

    settings = train_step.TrainSettings(
        snapshot_every,
        state_folder,
        delivery_timeout,
        FileTrust(signing_key, public_key, allow_pickle),
        warn=partial(click.echo, err=True),
    )
    if resume:
        changed = _find_changed_options(context, options)
        try:
            result = train_step.resume_training(context.obj, resume, changed, settings)
        except train_step.OptionConflictError as error:
            raise click.UsageError(str(error)) from error
    else:
        result = train_step.start_training(context.obj, options, settings)
    click.echo(result.describe())


def _find_changed_options(context: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that differ from their defaults.

    An MLflow Project passes all parameters, so an option with its default counts as not set.
    """
    defaults = {
        option.name: option.type_cast_value(context, option.get_default(context))
        for option in context.command.params
    }
    return {name: value for name, value in options.items() if value != defaults[name]}
