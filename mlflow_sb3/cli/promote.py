"""Define the command ``promote``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mlflow_sb3.cli.options import (
    allow_pickle_option,
    approval_option,
    config_option,
    fail_on_reject_option,
    public_key_option,
)
from mlflow_sb3.cli.promotion_options import challenger_options, gate_options
from mlflow_sb3.cli.step import Step

if TYPE_CHECKING:
    from mlflow_sb3.promotion.record import PromotionRecord


@click.command(cls=Step)
@config_option
@challenger_options
@gate_options
@approval_option
@fail_on_reject_option
@click.option(
    "--replay",
    default="",
    help="Id of the run of an earlier promotion: repeat its gate, and change nothing.",
)
@public_key_option
@allow_pickle_option
def promote(replay: str, **options: Any) -> None:
    """Compare a challenger with the champion on the same seeds, and promote it if it is better."""
    from mlflow_sb3.promotion.promotion_request import (
        PromotionRequest,
        PromotionRequestError,
        run_promotion,
    )

    if replay:
        _replay(replay, options["public_key"] or None, allow_pickle=options["allow_pickle"])
        return
    try:
        run_promotion(PromotionRequest(**options), on_record=_print_record)
    except PromotionRequestError as error:
        raise click.UsageError(str(error)) from error


def _print_record(record: PromotionRecord) -> None:
    click.echo(f"{record.verdict}: {record.reason}")


def _replay(run_id: str, public_key: str | None, *, allow_pickle: bool) -> None:
    from mlflow_sb3.promotion.replay import replay_promotion
    from mlflow_sb3.registry import signing

    signing.check_keys(None, public_key)
    differences = replay_promotion(
        run_id, public_key=public_key, allow_pickle=allow_pickle, progress=True
    )
    if differences:
        raise click.ClickException(
            f"The replay of run {run_id} differs: {'; '.join(differences)}. "
            "Use the package versions and the kind of processor of that run."
        )
    click.echo(f"identical: the replay of run {run_id} has the same episodes, bounds and verdict.")
