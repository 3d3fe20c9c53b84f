"""Define the command ``reproduce``."""

from __future__ import annotations

import click
import mlflow

from mlflow_sb3.cli.options import allow_pickle_option
from mlflow_sb3.cli.step import Step


@click.command(cls=Step)
@click.option("--run-id", required=True, help="Id of a run of train.")
@click.option(
    "--public-key",
    default="",
    help="PEM file of the Ed25519 public key that must have signed the model of a fine-tuning.  "
    "[default: do not check signatures]",
)
@allow_pickle_option
def reproduce(run_id: str, public_key: str, allow_pickle: bool) -> None:
    """Repeat a training, and report whether the weights are identical."""
    from mlflow_sb3.runs import run_name
    from mlflow_sb3.tracking.file_trust import FileTrust
    from mlflow_sb3.training import reproduce as reproduction
    from mlflow_sb3.training.training_record import load_training_record

    run, record = load_training_record(run_id)
    trust = FileTrust(public_key=public_key, allow_pickle=allow_pickle)
    reproduction.check_config(record.config, trust)
    with reproduction.checkout_commit(record.facts.commit) as project:
        new_run_id = reproduction.train_again(project, record.config, trust)
    result = reproduction.compare_training(run, record, new_run_id)
    verdict = "identical" if result.is_identical else "different"
    mlflow.set_tags(
        {"mlflow_sb3.reproduction": verdict, "mlflow_sb3.reproduced": run_id}
        | run_name.build_tags(f"reproduce {run_id[:8]} -> {verdict}")
    )
    mlflow.log_dict(
        {
            "run": run_id,
            "again": new_run_id,
            "verdict": verdict,
            "differences": result.differences,
        },
        "differences.json",
    )
    for difference in result.differences:
        click.echo(difference)
    click.echo(f"{verdict}: the weights of run {run_id} and of run {new_run_id}")
