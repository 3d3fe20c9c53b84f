"""Train an agent and keep the best that training passed.

Reads   rl_zoo3's tuned hyperparameters for the algorithm and the environment, or the agent of --from-model.
Writes  parameters sb3/..., SB3's metrics as curves, eval/..., the folder agent/ and the table candidates.json.
"""

from __future__ import annotations

import json
from typing import Any

import click
import mlflow

from steps.step import Step, recipe


@click.command(cls=Step)
@recipe
@click.option("--torch-threads", default=1, show_default=True, type=click.IntRange(min=1), help="Threads of PyTorch.")
@click.pass_obj
def train(
    run_id: str,
    env_id: str,
    algo: str,
    timesteps: int | None,
    seed: int,
    hyperparams: dict[str, Any],
    preset: Any,
    env_kwargs: dict[str, Any],
    wrappers: list[Any],
    from_model: str,
    torch_threads: int,
) -> None:
    """Train an agent with Stable-Baselines3 and keep the best that training passed."""
    from mlflow_sb3 import algorithm, ancestor, environment, presets, training, training_run
    from mlflow_sb3.tracking import MetricWriter

    algorithm.find(algo)
    environment.make(env_id, env_kwargs).close()  # imports the module in front of the id, which may register a game of Atari
    tuned = presets.Preset(from_model) if from_model else presets.find(algo, env_id, source=preset)
    tuned = tuned.override(hyperparams)
    algorithm.check_hyperparams(algo, tuned.hyperparams)
    wrappers = tuned.wrappers(wrappers)
    timesteps = timesteps or tuned.timesteps or presets.TIMESTEPS
    description = environment.compose(env_id, kwargs=env_kwargs, wrappers=wrappers)
    if from_model and not (env_kwargs or wrappers):
        description = ancestor.environment(from_model, description)
        wrappers = environment.wrappers(description)
    with environment.remake(description) as env:
        algorithm.check(algo, tuned.hyperparams, env)
        resolved = algorithm.resolve(algo, tuned.hyperparams, env.observation_space)
    before = None
    if from_model:
        before = ancestor.load(from_model, algo, description, tuned.hyperparams, seed=training.learning_seed(seed))
        before.log_lineage(run_id)
        resolved = algorithm.used(algo, before.model)
    given = {
        "env": env_id,
        "env_kwargs": json.dumps(env_kwargs),
        "wrappers": json.dumps(wrappers),
        "algo": algo,
        "timesteps": timesteps,
        "seed": seed,
        "preset": tuned.origin,
        "torch_threads": torch_threads,
    }
    mlflow.log_params({f"sb3/{key}": value for key, value in (given | resolved).items()})
    with MetricWriter(run_id) as writer:
        trained = training.train(
            description,
            algo,
            timesteps=timesteps,
            seed=seed,
            hyperparams=tuned.hyperparams,
            ancestor=before.model if before else None,
            writers=[writer],
            progress=True,
            torch_threads=torch_threads,
        )
        training_run.log(trained, description)
    click.echo(
        f"Kept the agent of step {trained.kept.step} of {len(trained.candidates)} candidates: mean return "
        f"{trained.kept.score:.2f} over {len(trained.kept.returns)} fresh episodes"
    )


if __name__ == "__main__":
    train()
