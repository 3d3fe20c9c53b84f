"""The whole workflow: train, log_model, promote and evaluate, each a run of its own under this one.

Reads   what its steps read.
Writes  four child runs; tags naming the version and the verdict.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import mlflow
from mlflow.entities import Run
from mlflow.exceptions import ExecutionException

from mlflow_sb3 import registry, settings
from steps.step import (
    Maybe,
    Step,
    approval_option,
    fail_on_reject_option,
    inference_option,
    public_key_option,
    recipe,
    signing_key_option,
)

PROJECT = Path(__file__).parent.parent


@click.command(cls=Step)
@recipe
@inference_option
@click.option("--model-name", default="", help="Registered model.  [default: made from env and algo, as cartpole-v1-dqn]")
@click.option("--episodes", default=100, show_default=True, type=click.IntRange(min=1), help="Episodes that the champion plays.")
@click.option("--gate-episodes", default=400, show_default=True, type=click.IntRange(min=2), help="Pairs that promote plays at the most.")
@click.option("--min-return", default="", type=Maybe(click.FLOAT), help="Mean return that a champion has to reach.")
@approval_option
@fail_on_reject_option
@signing_key_option
@public_key_option
def main(
    env_id: str,
    algo: str,
    timesteps: int | None,
    seed: int,
    hyperparams: dict[str, Any],
    preset: str,
    env_kwargs: dict[str, Any],
    wrappers: list[Any],
    from_model: str,
    inference: str,
    model_name: str,
    episodes: int,
    gate_episodes: int,
    min_return: float | None,
    approval: str,
    fail_on_reject: bool,
    signing_key: str,
    public_key: str,
) -> None:
    """Train an agent, log and register it, make it the champion if it is surely better, and play with the champion.

    Where there is no champion yet, the agent plays that did not become it.
    """
    name = model_name or registry.model_name(env_id, algo)
    registry.check_name(name)
    registry.check_keys(signing_key or None, public_key or None)
    settings.check_unpickling_allowed("log_model, which reads the agent that train wrote")
    recipe = {
        "env": env_id,
        "algo": algo,
        "timesteps": timesteps or "",
        "seed": seed,
        "hyperparams": json.dumps(hyperparams),
        "preset": preset,
        "env_kwargs": json.dumps(env_kwargs),
        "wrappers": json.dumps(wrappers),
        "from_model": from_model,
    }
    trained = _step("train", recipe)
    logged = _step("log_model", {"run_id": trained.info.run_id, "model_name": name, "inference": inference, "signing_key": signing_key})
    version = logged.data.tags["mlflow_sb3.version"]
    number = version.rpartition("/")[2]
    mlflow.set_tag("mlflow_sb3.version", version)
    gate = {
        "episodes": gate_episodes,
        "min_return": "" if min_return is None else min_return,
        "approval": approval,
        "fail_on_reject": str(fail_on_reject).lower(),
    }
    promoted = _step("promote", {"model_name": name, "version": number, "public_key": public_key} | gate)
    mlflow.set_tag("mlflow_sb3.verdict", promoted.data.tags["mlflow_sb3.verdict"])
    played = {} if registry.champion(name, "champion") else {"version": number}
    _step("evaluate", {"model_name": name, "episodes": episodes, "public_key": public_key} | played)


def _step(entry_point: str, parameters: dict[str, Any]) -> Run:
    """Run an entry point of this project as a child of the active run, in this environment."""
    click.echo(f"== {entry_point}")
    try:
        submitted = mlflow.run(  # type: ignore[no-untyped-call]
            str(PROJECT), entry_point, parameters=parameters, env_manager="local", run_name=entry_point
        )
    except ExecutionException as error:
        raise click.ClickException(f"{entry_point} failed: {error.message}; its line above says why.") from error
    return mlflow.get_run(submitted.run_id)


if __name__ == "__main__":
    main()
