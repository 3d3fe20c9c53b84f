"""Train an agent and keep the best that training passed, or go on with a training that ended before it was done.

Reads   rl_zoo3's tuned hyperparameters for the algorithm and the environment, or the agent of --from-model; the last snapshot of --resume.
Writes  parameters sb3/..., SB3's metrics as curves, eval/..., the folder agent/, the table candidates.json, training.json; snapshots/ until
        it has finished.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click

from mlflow_sb3.interruption import Interrupted
from steps.step import Maybe, Step, delivery_option, recipe_options, state_option


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
    from mlflow_sb3 import ancestor, interruption, recipe, resumption, state, tracker, training, training_run
    from mlflow_sb3.recipe import Recipe
    from mlflow_sb3.shelf import Shelf
    from mlflow_sb3.tracking import MetricWriter

    run_id, origin, before = context.obj, None, None
    with ExitStack() as stack:
        if resume:
            origin = stack.enter_context(resumption.found(resume, state_folder))
            followed = Recipe(**origin.header.context)
            _check_same(context, followed.options())
        else:
            followed, before = recipe.resolve(**options)
        folder = state.of_run(run_id, state_folder)
        stack.enter_context(_telling_how_to_go_on(run_id))
        stop = stack.enter_context(interruption.deferred())
        ancestor.log_lineage(run_id, followed.from_model)
        told = stack.enter_context(tracker.Tracker(run_id, folder, patience=delivery_timeout))
        told.params(followed.params())
        loaded = None if origin is None else origin.carry(told)
        trained = training.train(
            followed.description,
            followed.algo,
            timesteps=followed.timesteps,
            seed=followed.seed,
            hyperparams=followed.hyperparams,
            ancestor=before.model if before else None,
            writers=[MetricWriter(told)],
            shelf=Shelf(
                folder / tracker.SNAPSHOTS,
                every=snapshot_every,
                context=followed.to_json(),
                more=told.state,
                on_published=told.snapshot,
            ),
            resumed=loaded,
            stop=stop,
            progress=True,
            torch_threads=followed.torch_threads,
        )
        training_run.log(trained, followed, told)
    if resume:
        resumption.forget(resume, state_folder)
    click.echo(
        f"Kept the agent of step {trained.kept.step} of {len(trained.candidates)} candidates: mean return "
        f"{trained.kept.score:.2f} over {len(trained.kept.returns)} fresh episodes"
    )


@contextmanager
def _telling_how_to_go_on(run_id: str) -> Iterator[None]:
    try:
        yield
    except Interrupted:
        click.echo(f"Go on with it: mlflow run . -e train -P resume={run_id}", err=True)
        raise


def _check_same(context: click.Context, recorded: dict[str, str]) -> None:
    """Refuse options that differ from what the resumed training goes by; options that were left alone do not count."""
    for option in context.command.params:
        name, given = str(option.opts[0]).removeprefix("--").replace("-", "_"), context.params[str(option.name)]
        if name not in recorded or name == "preset":
            continue
        alone, before = (option.type_cast_value(context, value) for value in (option.get_default(context), recorded[name]))
        if given not in (alone, before):
            raise click.UsageError(
                f"{option.opts[0]} is {given!r}, and run {context.params['resume']} was trained with {before!r}; leave it out, since what "
                "is resumed goes on as it began, or train anew."
            )


if __name__ == "__main__":
    train()
