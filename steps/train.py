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

from mlflow_sb3.interruption import Interrupted
from steps.step import Maybe, Step, delivery_option, recipe_options, state_option

if TYPE_CHECKING:
    from mlflow_sb3.recipe import Recipe

_RECIPE = ("env", "algo", "timesteps", "seed", "hyperparams", "preset", "env_kwargs", "wrappers", "from_model", "torch_threads")


@click.command(cls=Step)
@recipe_options
@click.option("--torch-threads", default=1, show_default=True, type=click.IntRange(min=1), help="Threads of PyTorch.")
@click.option("--resume", default="", help="Run of train to go on with, which was killed or failed.")
@click.option("--snapshot-every", default="", type=Maybe(click.IntRange(min=1)), help="Steps.  [default: as 2 % of the time allow]")
@state_option
@delivery_option
@click.pass_context
def train(
    context: click.Context, /, resume: str, snapshot_every: int | None, state_folder: str, delivery_timeout: float, **options: Any
) -> None:
    """Train an agent with Stable-Baselines3 and keep the best that training passed."""
    from mlflow_sb3 import ancestor, interruption, provenance, recipe, resumption, state, tracker, training, training_run, uploads
    from mlflow_sb3.recipe import Recipe
    from mlflow_sb3.shelf import Shelf
    from mlflow_sb3.tracking import MetricWriter

    run_id, origin, before = context.obj, None, None
    with ExitStack() as stack:
        if resume:
            MlflowClient().set_tag(run_id, resumption.ORIGIN, resume)  # first of all: whoever resumes this run finds the origin by it
            origin = stack.enter_context(resumption.found(resume, state_folder))
            asked, followed = origin.header.context["asked"], Recipe(**origin.header.context["recipe"])
            _check_same(context, asked, followed.options())
        else:
            asked, (followed, before) = _asked(context), recipe.resolve(**options)
        _check(run_id, followed)
        folder, facts = state.of_run(run_id, state_folder), provenance.facts(followed.torch_threads)
        stack.enter_context(_telling_how_to_go_on(run_id, folder))
        stop = stack.enter_context(interruption.deferred())
        if followed.from_model_id:
            ancestor.log_lineage(run_id, followed.from_model_id)
        with tracker.Tracker(run_id, folder, patience=delivery_timeout) as told:
            told.params(followed.params())
            trained = training.train(
                followed.description,
                followed.algo,
                timesteps=followed.timesteps,
                seed=followed.seed,
                hyperparams=followed.hyperparams,
                ancestor=before.model if before else None,
                writers=[MetricWriter(told)],
                shelf=Shelf(
                    folder / uploads.SNAPSHOTS,
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
            resumption.forget(resume, state_folder)  # before a signal is obeyed again: the run has finished
    click.echo(
        f"Kept the agent of step {trained.kept.step} of {len(trained.candidates)} candidates: mean return "
        f"{trained.kept.score:.2f} over {len(trained.kept.returns)} fresh episodes"
    )


def _check(run_id: str, followed: Recipe) -> None:
    """Refuse before hours of training what would fail after them.

    A ``train`` that nobody called does not know what name the agent is to be registered by: that it cannot be the default one is
    worth a warning.
    """
    from mlflow_sb3 import names, preflight, rights, story

    preflight.check_artifacts(run_id)
    if story.PARENT in MlflowClient().get_run(run_id).data.tags:
        return
    try:
        preflight.check_registry(names.model_name(followed.env, followed.algo), "EDIT", make=False)
    except MlflowException as error:
        if error.error_code != rights.DENIED:
            raise
        click.echo(f"Warning: {error} Or give log_model another model_name.", err=True)


@contextmanager
def _telling_how_to_go_on(run_id: str, folder: Path) -> Iterator[None]:
    from mlflow_sb3 import resumption, uploads

    try:
        yield
    except Interrupted:
        if any((folder / uploads.SNAPSHOTS).glob("*.snapshot")):
            click.echo(f"Go on with it: {resumption.command(run_id, folder.parent)}", err=True)
        raise


def _asked(context: click.Context) -> dict[str, Any]:
    """The options that make the recipe, as JSON values, by the names of the entry point's parameters."""
    return {name: context.params[name] for name in (option.name for option in context.command.params) if name in _RECIPE}


def _check_same(context: click.Context, asked: dict[str, Any], resolved: dict[str, str]) -> None:
    """Refuse options that differ from what the resumed training was asked for and goes by; those that were left alone do not count."""
    for option in context.command.params:
        given = context.params[str(option.name)]
        if option.name not in asked or given in (asked[option.name], option.type_cast_value(context, option.get_default(context))):
            continue
        if option.name == "preset" or given != option.type_cast_value(context, resolved[option.name]):
            raise click.UsageError(
                f"{option.opts[0]} is {given!r}, and run {context.params['resume']} was trained with {asked[option.name]!r}; leave it out, "
                "since what is resumed goes on as it began, or train anew."
            )


if __name__ == "__main__":
    train()
