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
from steps.step import Step, inference_option, recipe

PROJECT = Path(__file__).parent.parent


@click.command(cls=Step)
@recipe
@inference_option
@click.option("--model-name", default="", help="Registered model.  [default: made from env and algo, as cartpole-v1-dqn]")
@click.option("--episodes", default=100, show_default=True, type=click.IntRange(min=1), help="Episodes that the champion plays.")
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
) -> None:
    """Train an agent, log and register it, make it the champion if it is better, and play with the champion."""
    name = model_name or registry.model_name(env_id, algo)
    registry.check_name(name)
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
    logged = _step("log_model", {"run_id": trained.info.run_id, "model_name": name, "inference": inference})
    version = logged.data.tags["mlflow_sb3.version"]
    mlflow.set_tag("mlflow_sb3.version", version)
    promoted = _step("promote", {"model_name": name, "version": version.rpartition("/")[2]})
    mlflow.set_tag("mlflow_sb3.verdict", promoted.data.tags["mlflow_sb3.verdict"])
    _step("evaluate", {"model_name": name, "episodes": episodes})


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
