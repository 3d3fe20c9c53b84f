"""Train an agent again as a run trained it, on the commit of that run, and compare the weights.

Reads   training.json and the tags of the run; the commit from this clone or its remotes.
Writes  a child run of train; the tag mlflow_sb3.reproduction; differences.json.
"""

from __future__ import annotations

import click
import mlflow

from steps.step import Step


@click.command(cls=Step)
@click.option("--run-id", required=True, help="Run of the entry point train.")
def reproduce(run_id: str) -> None:
    """Train again with the resolved parameters of a run, and say whether the weights are identical, or what differs."""
    from mlflow_sb3.training import provenance
    from mlflow_sb3.training.reproduce import checked_out, compare, train

    run, record = provenance.load_training_record(run_id)
    with checked_out(record["facts"]["commit"]) as project:
        again = train(project, record["recipe"])
    same, differences = compare(run, record, again)
    verdict = "identical" if same else "different"
    mlflow.set_tags({"mlflow_sb3.reproduction": verdict, "mlflow_sb3.reproduced": run_id})
    mlflow.log_dict(
        {"run": run_id, "again": again, "verdict": verdict, "differences": differences},
        "differences.json",
    )
    for difference in differences:
        click.echo(difference)
    click.echo(f"{verdict}: the weights of run {run_id} and of run {again}")


if __name__ == "__main__":
    reproduce()
