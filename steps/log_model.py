"""Log the agent of a training run as a model, and register it.

Reads   the folder agent/ and the parameters of the training run.
Writes  the model into the training run, a version of the registered model with its digest and signature, the alias challenger.
"""

from __future__ import annotations

from typing import Any

import click
import mlflow

from steps.step import Step, inference_option, signing_key_option


@click.command(cls=Step)
@click.option("--run-id", required=True, help="Run of the entry point train.")
@click.option(
    "--model-name",
    default="",
    help="Registered model.  [default: made from env and algo, as cartpole-v1-dqn]",
)
@inference_option
@click.option(
    "--image-input",
    default="tensor",
    show_default=True,
    type=click.Choice(["tensor", "base64"]),
    help="base64: an image comes as the bytes of a binary column.",
)
@signing_key_option
def log_model(
    run_id: str, model_name: str, inference: Any, image_input: Any, signing_key: str
) -> None:
    """Log the agent of a training run as a model that acts without PyTorch, and register it as the challenger."""
    from mlflow_sb3.registry import names, signing
    from mlflow_sb3.training import training_run

    if model_name:
        names.check_model_name(model_name)
    key = signing_key or None
    signing.check_keys(key)
    trained = training_run.load(run_id)
    name = model_name or names.default_model_name(trained.env_id, trained.algo)
    version = trained.log_model(
        name, alias=names.CHALLENGER, inference=inference, image_input=image_input, signing_key=key
    )
    mlflow.set_tag("mlflow_sb3.version", str(version))
    click.echo(
        f"Registered {version} as the challenger, digest {version.digest}, {'signed' if key else 'not signed'}"
    )


if __name__ == "__main__":
    log_model()
