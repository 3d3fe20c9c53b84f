"""Define the command ``log-model``."""

from __future__ import annotations

from typing import Any

import click
import mlflow

from mlflow_sb3.cli.options import (
    allow_pickle_option,
    config_option,
    inference_option,
    new_model_name_option,
    signing_key_option,
)
from mlflow_sb3.cli.step import Step


@click.command(cls=Step)
@config_option
@click.option("--run-id", required=True, help="Id of a run of train.")
@new_model_name_option
@inference_option
@click.option(
    "--image-input",
    default="tensor",
    show_default=True,
    type=click.Choice(["tensor", "base64"]),
    help="Encoding of images in requests. tensor: nested lists. base64: a binary column.",
)
@signing_key_option
@click.option(
    "--public-key",
    default="",
    help="PEM file of an Ed25519 public key. The agent is also trusted if the matching private key "
    "signed it, for example on another machine.  [default: none]",
)
@allow_pickle_option
def log_model(
    run_id: str, model_name: str, inference: Any, image_input: Any, **trust_options: Any
) -> None:
    """Log the agent of a training run, and register it with the alias challenger."""
    from mlflow_sb3.registry import names
    from mlflow_sb3.registry.model_version import VERSION_TAG
    from mlflow_sb3.runs import run_name
    from mlflow_sb3.tracking.file_trust import FileTrust
    from mlflow_sb3.training import training_run

    if model_name:
        names.check_model_name(model_name)
    trust = FileTrust(**trust_options)
    trust.check_keys()
    trained = training_run.load_training_run(run_id, trust=trust)
    version = trained.log_model(
        model_name or names.get_default_model_name(trained.env_id, trained.algo),
        alias=names.CHALLENGER_ALIAS,
        inference=inference,
        image_input=image_input,
        signing_key=trust.signing_key or None,
    )
    text = f"{version}, the agent of run {run_id}"
    tags = {VERSION_TAG: str(version)} | run_name.build_tags(f"log_model {version}", text)
    mlflow.set_tags(tags)
    click.echo(
        f"Registered {version} as the challenger, digest {version.digest}, "
        f"{'signed' if trust.signing_key else 'not signed'}"
    )
