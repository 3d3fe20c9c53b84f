"""Make a version of a registered model the champion, if it is really better than the one there is.

Reads   the challenger and the champion from the registry; with --replay, the record of an earlier run.
Writes  promotion.json, the table and the picture in promotion/, metrics promotion/...; tags and the description of the version;
        the aliases champion, previous-champion and challenger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import mlflow

from steps.step import (
    Maybe,
    Step,
    VersionNumber,
    approval_option,
    fail_on_reject_option,
    public_key_option,
)

if TYPE_CHECKING:
    from mlflow_sb3.promotion.promote import PromotionOptions
    from mlflow_sb3.registry.model_version import Version


@click.command(cls=Step)
@click.option(
    "--model-name", default="cartpole-v1-dqn", show_default=True, help="Registered model."
)
@click.option(
    "--version",
    "number",
    default="",
    type=VersionNumber(),
    help="Version to promote.  [default: the alias challenger]",
)
@click.option(
    "--alias", default="champion", show_default=True, help="Alias that the better one bears."
)
@click.option(
    "--episodes",
    default=400,
    show_default=True,
    type=click.IntRange(min=2),
    help="Pairs of episodes to play at the most.",
)
@click.option(
    "--alpha",
    default=0.05,
    show_default=True,
    type=float,
    help="Chance of promoting a challenger that is not better.",
)
@click.option(
    "--min-improvement",
    default=0.0,
    show_default=True,
    type=float,
    help="Return that the challenger has to be ahead.",
)
@click.option(
    "--min-return", default="", type=Maybe(click.FLOAT), help="Mean return that it has to reach."
)
@click.option(
    "--environment",
    default="",
    help="That judges: challenger, champion, an id or EnvSpec JSON.  [default: the one of both]",
)
@click.option(
    "--candidates",
    default="challenger",
    show_default=True,
    type=click.Choice(["challenger", "best"]),
    help="best: by training.",
)
@click.option(
    "--top",
    default=3,
    show_default=True,
    type=click.IntRange(min=1),
    help="Versions that --candidates best takes.",
)
@click.option(
    "--experiment", default="", help="Name, for --candidates best.  [default: that of this run]"
)
@click.option(
    "--rule",
    default="test",
    show_default=True,
    type=click.Choice(["test", "force"]),
    help="force: without playing.",
)
@click.option("--reason", default="", help="Why, for --rule force.")
@approval_option
@fail_on_reject_option
@click.option(
    "--replay", default="", help="Play the promotion of this run again, and change nothing."
)
@public_key_option
def promote(
    model_name: str, number: int | None, alias: str, replay: str, fail_on_reject: bool, **asked: Any
) -> None:
    """Play challenger and champion on the same seeds; the alias moves to the challenger if it is surely better."""
    from mlflow_sb3.promotion.promote import promote_version
    from mlflow_sb3.registry import names, signing, versions

    signing.check_keys(None, asked["public_key"] or None)
    if replay:
        return _replay(replay, asked["public_key"] or None)
    names.check_champion_alias(alias)
    if (asked["rule"] == "force") != bool(asked["reason"].strip()):
        raise click.UsageError(
            "--rule force and --reason go together: say why the version is promoted without playing."
        )
    challengers = _challengers(model_name, number, alias, asked)
    terms = _terms(alias, asked, len(challengers))
    if len(challengers) == 1:
        _echo(promote_version(challengers[0], terms, progress=True))
    else:
        _one_by_one(challengers, terms)
    reigning = versions.find_champion(model_name, alias)
    if fail_on_reject and (
        reigning is None or reigning.number not in [challenger.number for challenger in challengers]
    ):
        raise click.ClickException(
            f"{' and '.join(map(str, challengers))} did not become the {alias} of {model_name}."
        )
    return None


def _one_by_one(challengers: list[Version], terms: PromotionOptions) -> None:
    """Each in a run of its own; one that cannot be decided keeps no other from its games."""
    from mlflow_sb3.promotion.promote import promote_version
    from mlflow_sb3.runs import heartbeat

    words, failures = [], []
    for challenger in challengers:
        try:
            with (
                mlflow.start_run(run_name=str(challenger), nested=True) as run,
                heartbeat.heartbeat(run.info.run_id),
            ):
                words.append(_echo(promote_version(challenger, terms, progress=True)))
        except Exception as error:  # noqa: BLE001 the same as of a step, raised when all have played
            failures.append(f"{challenger} could not be decided: {error}")
    mlflow.set_tag(
        "mlflow_sb3.verdict",
        next(
            (word for word in ("promote", "inconclusive", "tie", "reject") if word in words),
            "error",
        ),
    )
    if failures:
        raise click.ClickException(" ".join(failures))


def _echo(found: dict[str, Any]) -> str:
    click.echo(f"{found['verdict']}: {found['reason']}")
    return str(found["verdict"])


def _challengers(
    model_name: str, number: int | None, alias: str, asked: dict[str, Any]
) -> list[Version]:
    from mlflow_sb3.promotion.challengers import best_challengers
    from mlflow_sb3.registry import names, versions

    if asked["candidates"] == "challenger":
        return [versions.find_version(model_name, alias=names.CHALLENGER, number=number)]
    if number is not None or asked["rule"] == "force":
        raise click.UsageError(
            "--candidates best finds the versions itself and lets them play; leave --version and --rule force out."
        )
    return best_challengers(model_name, alias, _experiment_id(asked["experiment"]), asked["top"])


def _experiment_id(name: str) -> str:
    """Of the experiment of that name, or else of this run."""
    if not name:
        return str(mlflow.get_run(click.get_current_context().obj).info.experiment_id)
    found = mlflow.get_experiment_by_name(name)
    if found is None:
        raise click.UsageError(
            f"--experiment {name!r} does not exist; give the name of one that agents were trained in."
        )
    return str(found.experiment_id)


def _terms(alias: str, asked: dict[str, Any], challengers: int) -> PromotionOptions:
    """What the options ask for; several challengers share the chance of an error."""
    from mlflow_sb3.promotion.gate import Gate
    from mlflow_sb3.promotion.promote import PromotionOptions

    try:
        gate = Gate(
            asked["episodes"],
            asked["alpha"] / challengers,
            asked["min_improvement"],
            asked["min_return"],
        )
    except ValueError as error:
        raise click.UsageError(f"{error}") from error
    force = asked["reason"] if asked["rule"] == "force" else None
    return PromotionOptions(
        alias,
        gate,
        asked["environment"] or None,
        force,
        asked["approval"] == "required",
        asked["public_key"] or None,
    )


def _replay(run_id: str, public_key: str | None) -> None:
    from mlflow_sb3.promotion import replay

    if differences := replay.replay(run_id, public_key=public_key, progress=True):
        raise click.ClickException(f"the replay of run {run_id} differs: {'; '.join(differences)}.")
    click.echo(f"identical: run {run_id} has the same episodes, bounds and verdict again")


if __name__ == "__main__":
    promote()
