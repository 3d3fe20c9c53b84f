"""Give the alias back to the version that bore it before.

Reads   the reigns in the registered model's tag, and the version that takes over again.
Writes  promotion.json; tags and the description of the version; the aliases champion and previous-champion.
"""

from __future__ import annotations

import click

from steps.step import Step, public_key_option


@click.command(cls=Step)
@click.option(
    "--model-name", default="cartpole-v1-dqn", show_default=True, help="Registered model."
)
@click.option("--alias", default="champion", show_default=True, help="Alias that goes back.")
@click.option("--reason", default="", help="Why, for the record.")
@public_key_option
def rollback(model_name: str, alias: str, reason: str, public_key: str) -> None:
    """Make the version champion again that was it before; called twice, it goes back two."""
    from mlflow_sb3.promotion.rollback import roll_back
    from mlflow_sb3.registry import names, signing, versions

    signing.check_keys(None, public_key or None)
    names.check_champion_alias(alias)
    versions.check_model_exists(model_name)
    found = roll_back(model_name, alias, why=reason, public_key=public_key or None)
    click.echo(f"rollback: {found['reason']}")


if __name__ == "__main__":
    rollback()
