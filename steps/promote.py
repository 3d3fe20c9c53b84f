"""Promote a version of a registered model to champion if it is better than the current champion.

Reads   the challenger and the champion from the registry; with --replay, the record of a run.
Writes  promotion.json, the table and the figure in promotion/, metrics promotion/...; tags and
        the description of the version; the aliases champion, previous-champion and challenger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from steps.options import (
    allow_pickle_option,
    approval_option,
    fail_on_reject_option,
    public_key_option,
)
from steps.promotion_options import challenger_options, gate_options
from steps.step import Step

if TYPE_CHECKING:
    from mlflow_sb3.promotion.record import PromotionRecord


@click.command(cls=Step)
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


if __name__ == "__main__":
    promote()
