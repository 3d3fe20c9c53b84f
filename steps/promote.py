"""Make a version of a registered model the champion, if it is better than the one there is.

Reads   the challenger and the champion from the registry.
Writes  the aliases champion and previous-champion, metrics promotion/..., promotion.json, tags on the run and the version.
"""

from __future__ import annotations

import click
import mlflow

from steps.step import Step, VersionNumber


@click.command(cls=Step)
@click.option("--model-name", default="cartpole-v1-dqn", show_default=True, help="Registered model.")
@click.option("--version", "number", default="", type=VersionNumber(), help="Version to promote.  [default: the alias challenger]")
@click.option("--alias", default="champion", show_default=True, help="Alias that the better one bears.")
def promote(model_name: str, number: int | None, alias: str) -> None:
    """Play challenger and champion on the same seeds; the alias moves to the challenger if it is better."""
    from mlflow_sb3 import promotion, registry

    registry.check_alias(alias)
    challenger = registry.find(model_name, alias=registry.CHALLENGER, number=number)
    outcome = promotion.hold(challenger, registry.champion(model_name, alias), progress=True)
    mlflow.log_metrics(outcome.metrics, model_id=challenger.model_id)
    mlflow.log_dict(outcome.record, "promotion.json")
    outcome.apply(alias)
    mlflow.set_tags({"mlflow_sb3.version": str(challenger), "mlflow_sb3.verdict": outcome.verdict.verdict})
    click.echo(f"{outcome.verdict.verdict}: {challenger}: {outcome.verdict.reason}")


if __name__ == "__main__":
    promote()
