"""Define the command ``rollback``."""

from __future__ import annotations

import click

from mlflow_sb3.cli.options import allow_pickle_option, model_name_option, public_key_option
from mlflow_sb3.cli.step import Step


@click.command(cls=Step)
@model_name_option
@click.option("--alias", default="champion", show_default=True, help="Alias to move back.")
@click.option("--reason", default="", help="Reason for the rollback, stored in the record.")
@public_key_option
@allow_pickle_option
def rollback(model_name: str, alias: str, reason: str, public_key: str, allow_pickle: bool) -> None:
    """Make the previous champion the champion again; a second call goes back one more version."""
    from mlflow_sb3.promotion.rollback import roll_back

    record = roll_back(
        model_name,
        alias,
        why=reason,
        public_key=public_key or None,
        allow_pickle=allow_pickle,
    )
    click.echo(f"rollback: {record.reason}")
