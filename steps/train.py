"""Train an agent and keep the best that training passed, or go on with a training that ended before it was done.

Reads   rl_zoo3's tuned hyperparameters for the algorithm and the environment, or the agent of --from-model; the last snapshot of --resume.
Writes  parameters sb3/..., SB3's metrics as curves, eval/..., the folder agent/, the table candidates.json, training.json,
        preflight.txt; snapshots/ until it has finished.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_sb3.runs.signals import Interrupted
from steps.step import Maybe, Step, delivery_option, recipe_options, state_option

if TYPE_CHECKING:
    from mlflow_sb3.training.config import TrainingConfig

_RECIPE = (
    "env",
    "algo",
    "timesteps",
    "seed",
    "hyperparams",
    "preset",
    "env_kwargs",
    "wrappers",
    "from_model",
    "torch_threads",
)


@click.command(cls=Step)
@recipe_options
@click.option(
    "--torch-threads",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    help="Threads of PyTorch.",
)
@click.option(
    "--resume", default="", help="Run of train to go on with, which was killed or failed."
)
@click.option(
    "--snapshot-every",
    default="",
    type=Maybe(click.IntRange(min=1)),
    help="Steps.  [default: as 2 % of the time allow]",
)
@state_option
@delivery_option
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
    """Train an agent with Stable-Baselines3 and keep the best that training passed."""
    from mlflow_sb3.runs import signals, state_dir
    from mlflow_sb3.tracking import run_logger, snapshot_uploader
    from mlflow_sb3.tracking.metric_writer import MetricWriter
    from mlflow_sb3.training import config, finetune, loop, provenance, training_run
    from mlflow_sb3.training.config import TrainingConfig
    from mlflow_sb3.training.resume import RESUMED_FROM_TAG, delete_snapshots, find_snapshot
    from mlflow_sb3.training.snapshot_writer import SnapshotWriter

    run_id, origin, before = context.obj, None, None
    with ExitStack() as stack:
        if resume:
            MlflowClient().set_tag(
                run_id, RESUMED_FROM_TAG, resume
            )  # first of all: whoever resumes this run finds the origin by it
            origin = stack.enter_context(find_snapshot(resume, state_folder))
            asked, followed = (
                origin.header.context["asked"],
                TrainingConfig(**origin.header.context["recipe"]),
            )
            _check_same(context, asked, followed.options())
        else:
            asked, (followed, before) = _asked(context), config.resolve_config(**options)
        _check(run_id, followed)
        folder, facts = (
            state_dir.run_dir(run_id, state_folder),
            provenance.collect_facts(followed.torch_threads),
        )
        stack.enter_context(_telling_how_to_go_on(run_id, folder))
        stop = stack.enter_context(signals.defer_signals())
        if followed.from_model_id:
            finetune.log_lineage(run_id, followed.from_model_id)
        with run_logger.RunLogger(run_id, folder, patience=delivery_timeout) as told:
            told.params(followed.params())
            trained = loop.train(
                followed.description,
                followed.algo,
                timesteps=followed.timesteps,
                seed=followed.seed,
                hyperparams=followed.hyperparams,
                ancestor=before.model if before else None,
                writers=[MetricWriter(told)],
                shelf=SnapshotWriter(
                    folder / snapshot_uploader.SNAPSHOT_DIR,
                    every=snapshot_every,
                    context={"asked": asked, "recipe": followed.to_json(), "facts": facts},
                    more=told.state,
                    on_published=told.snapshot,
                ),
                resumed=None if origin is None else origin.carry(told, facts),
                stop=stop,
                progress=True,
                torch_threads=followed.torch_threads,
            )
            training_run.log(trained, followed, facts, told)
        if resume:
            delete_snapshots(
                resume, state_folder
            )  # before a signal is obeyed again: the run has finished
    click.echo(
        f"Kept the agent of step {trained.kept.step} of {len(trained.candidates)} candidates: mean return "
        f"{trained.kept.score:.2f} over {len(trained.kept.returns)} fresh episodes"
    )


def _check(run_id: str, followed: TrainingConfig) -> None:
    """Refuse before hours of training what would fail after them.

    A ``train`` that nobody called does not know what name the agent is to be registered by: that it cannot be the default one is
    worth a warning.
    """
    from mlflow_sb3.client import permissions, preflight
    from mlflow_sb3.registry import names
    from mlflow_sb3.runs import previous_attempt

    preflight.check_artifacts(run_id)
    if previous_attempt.PARENT in MlflowClient().get_run(run_id).data.tags:
        return
    try:
        preflight.check_registry(
            names.default_model_name(followed.env, followed.algo), "EDIT", make=False
        )
    except MlflowException as error:
        if error.error_code != permissions.PERMISSION_DENIED_CODE:
            raise
        click.echo(f"Warning: {error} Or give log_model another model_name.", err=True)


@contextmanager
def _telling_how_to_go_on(run_id: str, folder: Path) -> Iterator[None]:
    from mlflow_sb3.tracking import snapshot_uploader
    from mlflow_sb3.training.resume import resume_command

    try:
        yield
    except Interrupted:
        if any((folder / snapshot_uploader.SNAPSHOT_DIR).glob("*.snapshot")):
            click.echo(f"Go on with it: {resume_command(run_id, folder.parent)}", err=True)
        raise


def _asked(context: click.Context) -> dict[str, Any]:
    """The options that make the recipe, as JSON values, by the names of the entry point's parameters."""
    return {
        name: context.params[name]
        for name in (option.name for option in context.command.params)
        if name in _RECIPE
    }


def _check_same(context: click.Context, asked: dict[str, Any], resolved: dict[str, str]) -> None:
    """Refuse options that differ from what the resumed training was asked for and goes by; those that were left alone do not count."""
    for option in context.command.params:
        given = context.params[str(option.name)]
        if option.name not in asked or given in (
            asked[option.name],
            option.type_cast_value(context, option.get_default(context)),
        ):
            continue
        if option.name == "preset" or given != option.type_cast_value(
            context, resolved[option.name]
        ):
            raise click.UsageError(
                f"{option.opts[0]} is {given!r}, and run {context.params['resume']} was trained with {asked[option.name]!r}; leave it out, "
                "since what is resumed goes on as it began, or train anew."
            )


if __name__ == "__main__":
    train()
