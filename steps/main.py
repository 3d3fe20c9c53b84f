"""The whole workflow: train, log_model, promote and evaluate, each a run of its own under this one.

Reads   what its steps read; the steps of an earlier call with the same parameters that was interrupted.
Writes  four child runs; tags naming the version and the verdict; preflight.txt.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import mlflow
from mlflow.entities import Run
from mlflow.exceptions import ExecutionException

from mlflow_sb3.client import preflight, retry
from mlflow_sb3.inference import agent_files
from mlflow_sb3.registry import names, signing, versions
from mlflow_sb3.runs import previous_attempt, signals
from mlflow_sb3.runs.previous_attempt import PreviousAttempt
from mlflow_sb3.runs.signals import Interrupted
from mlflow_sb3.training import resume
from steps.step import (
    Maybe,
    Step,
    approval_option,
    fail_on_reject_option,
    inference_option,
    public_key_option,
    recipe_options,
    signing_key_option,
    state_option,
)

PROJECT = Path(__file__).parent.parent


@click.command(cls=Step)
@recipe_options
@inference_option
@click.option(
    "--model-name",
    default="",
    help="Registered model.  [default: made from env and algo, as cartpole-v1-dqn]",
)
@click.option(
    "--episodes",
    default=100,
    show_default=True,
    type=click.IntRange(min=1),
    help="Episodes that the champion plays.",
)
@click.option(
    "--gate-episodes",
    default=400,
    show_default=True,
    type=click.IntRange(min=2),
    help="Pairs that promote plays at the most.",
)
@click.option(
    "--min-return",
    default="",
    type=Maybe(click.FLOAT),
    help="Mean return that a champion has to reach.",
)
@approval_option
@fail_on_reject_option
@signing_key_option
@public_key_option
@state_option
@click.option(
    "--fresh",
    default=False,
    show_default=True,
    type=bool,
    help="Go on with no earlier call that was interrupted.",
)
@click.pass_obj
def main(
    run_id: str,
    /,
    model_name: str,
    signing_key: str,
    public_key: str,
    **given: Any,
) -> None:
    """Train an agent, log and register it, make it the champion if it is surely better, and play with the champion.

    Where there is no champion yet, the agent plays that did not become it.
    """
    name = model_name or names.default_model_name(given["env"], given["algo"])
    names.check_model_name(name)
    signing.check_keys(signing_key or None, public_key or None)
    agent_files.check_unpickling_allowed("log_model, which reads the agent that train wrote")
    preflight.check_artifacts(run_id)
    preflight.check_registry(name, "MANAGE")
    _work(run_id, name=name, signing_key=signing_key, public_key=public_key, **given)


def _work(
    run_id: str,
    *,
    name: str,
    inference: str,
    episodes: int,
    gate_episodes: int,
    min_return: float | None,
    approval: str,
    fail_on_reject: bool,
    signing_key: str,
    public_key: str,
    state_folder: str,
    fresh: bool,
    **recipe: Any,
) -> None:
    """Call the steps one after the other."""
    steps = _Steps(
        previous_attempt.find_previous_attempt(run_id, fresh=fresh),
        run_id,
        state_folder,
    )
    trained = steps.train({key: _text(value) for key, value in recipe.items()})
    logged = steps.run(
        "log_model",
        {
            "run_id": trained.info.run_id,
            "model_name": name,
            "inference": inference,
            "signing_key": signing_key,
        },
    )
    version = logged.data.tags["mlflow_sb3.version"]
    number = version.rpartition("/")[2]
    mlflow.set_tag("mlflow_sb3.version", version)
    gate = {
        "episodes": gate_episodes,
        "min_return": _text(min_return),
        "approval": approval,
        "fail_on_reject": _text(fail_on_reject),
    }
    promoted = steps.run(
        "promote", {"model_name": name, "version": number, "public_key": public_key} | gate
    )
    mlflow.set_tag("mlflow_sb3.verdict", promoted.data.tags["mlflow_sb3.verdict"])
    played = {} if versions.find_champion(name, "champion") else {"version": number}
    steps.run(
        "evaluate", {"model_name": name, "episodes": episodes, "public_key": public_key} | played
    )


class _Steps:
    """Entry points of this project as children of the active run, in this environment; what an earlier call finished is not done again."""

    def __init__(self, earlier: PreviousAttempt, run_id: str, state_folder: str) -> None:
        self._earlier = earlier
        self._run_id = run_id
        self._state_folder = state_folder
        if earlier.steps:
            click.echo(
                f"Going on with run {earlier.run_id}: the same parameters and code, and it did not finish. fresh=true starts anew."
            )

    def train(self, recipe: dict[str, Any]) -> Run:
        """Train, or go on with a training that was interrupted."""
        where = {"state_folder": self._state_folder}
        done = self._earlier.finished("train", recipe)
        for begun in [] if done else self._earlier.unfinished("train", recipe):
            settled = resume.flush_journal(begun, self._state_folder)
            if settled.info.status == "FINISHED":
                done = settled
                break
            if resume.has_snapshot(settled, self._state_folder):
                why = f": resumes run {begun.info.run_id}, which left a snapshot"
                return self._call("train", recipe | where | {"resume": begun.info.run_id}, why)
        return self._call("train", recipe | where) if done is None else _reused("train", done)

    def run(self, entry_point: str, parameters: dict[str, Any]) -> Run:
        """Run a step, unless it finished with the same parameters."""
        done = self._earlier.finished(entry_point, parameters)
        return self._call(entry_point, parameters) if done is None else _reused(entry_point, done)

    def _call(self, entry_point: str, parameters: dict[str, Any], why: str = "") -> Run:
        click.echo(f"== {entry_point}{why}")
        try:
            with signals.prefer_interrupt():
                submitted = mlflow.run(  # type: ignore[no-untyped-call]
                    str(PROJECT),
                    entry_point,
                    parameters=parameters,
                    env_manager="local",
                    run_name=entry_point,
                )
        except Interrupted:  # MLflow has handed it on to the step, and waited for it
            click.echo(
                "Run main again with the same parameters to go on where it stopped.", err=True
            )
            with suppress(*retry.CONNECTION_ERRORS):
                previous_attempt.mark_killed(self._run_id)
            raise
        except ExecutionException as error:
            raise click.ClickException(
                f"{entry_point} failed: {error.message}; its line above says why."
            ) from error
        return mlflow.get_run(submitted.run_id)


def _reused(entry_point: str, done: Run) -> Run:
    click.echo(
        f"== {entry_point}: run {done.info.run_id} finished with the same parameters on the same code, and is reused"
    )
    return done


def _text(value: Any) -> str:
    """A value as the text of a parameter."""
    if isinstance(value, bool):
        return str(value).lower()
    return (
        ""
        if value is None
        else json.dumps(value)
        if isinstance(value, (dict, list))
        else str(value)
    )


if __name__ == "__main__":
    main()
