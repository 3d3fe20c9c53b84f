"""Train an agent and keep its best checkpoint, or resume an interrupted training.

Reads   rl_zoo3's hyperparameters, or the agent of --from-model; the last snapshot of --resume.
Writes  parameters, metrics, agent/, candidates.json, training.json; snapshots/ while it trains.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from steps.options import OptionalValue, state_folder_option, training_options
from steps.step import Step


@click.command(cls=Step)
@training_options
@click.option(
    "--torch-threads",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    help="Number of threads of PyTorch. The trained weights depend on it.",
)
@click.option(
    "--resume",
    default="",
    help="Id of the run of an interrupted training to resume.  [default: start a new training]",
)
@click.option(
    "--snapshot-every",
    default="",
    type=OptionalValue(click.IntRange(min=1)),
    help="Environment steps between two snapshots.  [default: chosen to take 2 % of the time]",
)
@state_folder_option
@click.option(
    "--delivery-timeout",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds to wait for an unreachable tracking server after the training.",
)
@click.pass_context
def train(
    context: click.Context,
    /,
    resume: str,
    snapshot_every: int | None,
    state_folder: str,
    delivery_timeout: float,
    **options: Any,
) -> None:
    """Train an agent with Stable-Baselines3 and keep its best checkpoint."""
    from mlflow_sb3.training import train_step

    settings = train_step.TrainSettings(
        snapshot_every, state_folder, delivery_timeout, warn=partial(click.echo, err=True)
    )
    if resume:
        changed = _find_changed_options(context, options)
        try:
            result = train_step.resume_training(context.obj, resume, changed, settings)
        except train_step.OptionConflictError as error:
            raise click.UsageError(str(error)) from error
    else:
        result = train_step.start_training(context.obj, options, settings)
    best = result.best
    click.echo(
        f"Kept the checkpoint of step {best.step} out of {len(result.checkpoints)}: "
        f"mean return {best.score:.2f} over {len(best.returns)} fresh episodes"
    )


def _find_changed_options(context: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that differ from their defaults.

    An MLflow Project passes all parameters, so an option with its default counts as not set.
    """
    defaults = {
        option.name: option.type_cast_value(context, option.get_default(context))
        for option in context.command.params
    }
    return {name: value for name, value in options.items() if value != defaults[name]}


if __name__ == "__main__":
    train()
