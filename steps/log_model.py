"""Log the agent of a training run as a model, and register it.

Reads   the folder agent/ and the parameters of the training run.
Writes  the model into the training run, a version of the registered model with its digest, the alias challenger.
"""

from __future__ import annotations

import click
import mlflow

from steps.step import Step


@click.command(cls=Step)
@click.option("--run-id", required=True, help="Run of the entry point train.")
@click.option("--model-name", default="", help="Registered model.  [default: made from env and algo, as cartpole-v1-dqn]")
def log_model(run_id: str, model_name: str) -> None:
    """Log the agent of a training run as a model that acts without PyTorch, and register it as the challenger."""
    from mlflow_sb3 import registry, training_run

    if model_name:
        registry.check_name(model_name)
    trained = training_run.load(run_id)
    version = trained.log_model(model_name or registry.model_name(trained.env_id, trained.algo), alias=registry.CHALLENGER)
    mlflow.set_tag("mlflow_sb3.version", str(version))
    click.echo(f"Registered {version} as the challenger, digest {version.digest}")


if __name__ == "__main__":
    log_model()
