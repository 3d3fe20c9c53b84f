"""Promote the challengers that a user selected: one version, or several in child runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_sb3.envs import entry_points
from mlflow_sb3.promotion import challengers, promotion_run
from mlflow_sb3.promotion.gate import Gate
from mlflow_sb3.promotion.promote import PromotionOptions, promote_version
from mlflow_sb3.promotion.record import PromotionRecord
from mlflow_sb3.registry import names, signing, versions
from mlflow_sb3.registry.model_version import Version
from mlflow_sb3.runs import heartbeat

_VERDICT_ORDER = ("promote", "inconclusive", "tie", "reject")
"""Verdicts by importance: the parent run gets the first one that a child run has."""


class PromotionRequestError(ValueError):
    """A value of a request is out of its range, or two values contradict each other."""


@dataclass(frozen=True)
class PromotionRequest:
    """Options of the entry point ``promote``.

    Attributes:
        model_name: Name of the registered model.
        number: Version to promote; None for the version with the alias ``challenger``.
        alias: Alias that the winner gets.
        episodes: Largest number of pairs of episodes to play.
        alpha: Nominal upper bound for the probability of promoting any challenger that is not
            better.
        alpha_per_reign: Error probability that all gates since the last promotion share, instead
            of ``alpha``; None to use ``alpha``.
        min_improvement: Mean return by which a challenger must exceed the champion.
        min_return: Mean return that a challenger must reach; None for no limit.
        environment: Judging environment, see ``arrange_matchup``; empty for the environment that
            both agents were trained in.
        candidates: ``challenger`` for one version, ``best`` for the best trainings.
        top: Largest number of versions for ``candidates="best"``.
        experiment: Name of the experiment for ``best``; empty for the active run's experiment.
        rule: ``test`` to run the gate, ``force`` to promote without it.
        reason: Reason for ``rule="force"``.
        approval: ``required`` if the version needs the tag ``approval=approved``, or ``none``.
        fail_on_reject: Raise an error unless a challenger is the champion afterwards.
        public_key: Public key that must have signed all versions; empty for none.
        allow_pickle: As in ``registered_agent.load_agent``.

    Raises:
        PromotionRequestError: Two values contradict each other.
    """

    model_name: str
    number: int | None = None
    alias: str = "champion"
    episodes: int = 400
    alpha: float = 0.05
    alpha_per_reign: float | None = None
    min_improvement: float = 0.0
    min_return: float | None = None
    environment: str = ""
    candidates: Literal["challenger", "best"] = "challenger"
    top: int = 3
    experiment: str = ""
    rule: Literal["test", "force"] = "test"
    reason: str = ""
    approval: Literal["none", "required"] = "none"
    fail_on_reject: bool = False
    public_key: str = ""
    allow_pickle: bool = False

    def __post_init__(self) -> None:
        if (self.rule == "force") != bool(self.reason.strip()):
            raise PromotionRequestError(
                "rule=force and reason must be set together, "
                f"got rule={self.rule} and reason={self.reason!r}. Give a reason to promote "
                "without a gate, or leave both out."
            )
        if self.candidates == "best" and (self.number is not None or self.rule == "force"):
            raise PromotionRequestError(
                "candidates=best selects the versions and runs the gate. "
                "Leave version and rule=force out, or use candidates=challenger."
            )


def run_promotion(
    request: PromotionRequest,
    *,
    on_record: Callable[[PromotionRecord], object] = lambda _: None,
    progress: bool = True,
) -> None:
    """Promote the challengers of a request in the active run.

    Several challengers get a child run each. They share ``alpha``, so that the probability of
    promoting any challenger that is not better stays the same.

    Args:
        request: Challengers and options.
        on_record: Called with the record of each challenger.
        progress: Show progress bars on standard error.

    Raises:
        PromotionRequestError: A value of the request is out of its range, or the experiment does
            not exist.
        MlflowException: The alias or the public key is not valid, a version does not exist, the
            promotion of a challenger failed, or ``fail_on_reject`` is set and no challenger is
            the champion afterwards.
    """
    signing.check_keys(None, request.public_key or None)
    names.check_champion_alias(request.alias)
    entry_points.trust_options(request.environment)
    selected = _find_challengers(request)
    options = _build_options(request, len(selected))
    if len(selected) == 1:
        on_record(promote_version(selected[0], options, progress=progress))
    else:
        _promote_in_child_runs(selected, options, on_record, progress=progress)
    if request.fail_on_reject:
        _check_champion(request, selected)


def _find_challengers(request: PromotionRequest) -> list[Version]:
    if request.candidates == "challenger":
        return [
            versions.find_version(
                request.model_name, alias=names.CHALLENGER_ALIAS, number=request.number
            )
        ]
    return challengers.find_best_challengers(
        request.model_name, request.alias, _find_experiment_id(request.experiment), request.top
    )


def _find_experiment_id(name: str) -> str:
    if not name:
        return str(promotion_run.get_active_run().info.experiment_id)
    experiment = mlflow.get_experiment_by_name(name)
    if experiment is None:
        raise PromotionRequestError(
            f"Experiment {name!r} does not exist. "
            "Set experiment to the name of an experiment with training runs."
        )
    return str(experiment.experiment_id)


def _build_options(request: PromotionRequest, challenger_count: int) -> PromotionOptions:
    """Build the options of each challenger, with its share of ``alpha``."""
    alpha = request.alpha / challenger_count
    if request.alpha_per_reign is not None:
        alpha = request.alpha_per_reign
    try:
        gate = Gate(
            episodes=request.episodes,
            alpha=alpha,
            min_improvement=request.min_improvement,
            min_return=request.min_return,
        )
    except ValueError as error:
        share = f" alpha={request.alpha} is shared by {challenger_count} challengers."
        raise PromotionRequestError(f"{error}{share if challenger_count > 1 else ''}") from error
    return PromotionOptions(
        alias=request.alias,
        gate=gate,
        alpha_per_reign=request.alpha_per_reign,
        judging_environment=request.environment or None,
        force_reason=request.reason if request.rule == "force" else None,
        is_approval_required=request.approval == "required",
        public_key=request.public_key or None,
        allow_pickle=request.allow_pickle,
    )


def _promote_in_child_runs(
    selected: list[Version],
    options: PromotionOptions,
    on_record: Callable[[PromotionRecord], object],
    *,
    progress: bool,
) -> None:
    """Promote each challenger in a child run; an error of one does not stop the others."""
    verdicts, failures = set(), []
    for challenger in selected:
        try:
            with (
                mlflow.start_run(run_name=str(challenger), nested=True) as run,
                heartbeat.send_heartbeats(run.info.run_id),
            ):
                record = promote_version(challenger, options, progress=progress)
                on_record(record)
                verdicts.add(record.verdict)
        except Exception as error:  # noqa: BLE001 raised below, after all challengers had a gate
            failures.append(f"The promotion of {challenger} failed: {error}")
    verdict = next((verdict for verdict in _VERDICT_ORDER if verdict in verdicts), "error")
    mlflow.set_tag(promotion_run.VERDICT_TAG, verdict)
    if failures:
        raise MlflowException(" ".join(failures))


def _check_champion(request: PromotionRequest, selected: list[Version]) -> None:
    champion = versions.find_champion(request.model_name, request.alias)
    if champion is None or champion.number not in [version.number for version in selected]:
        raise MlflowException(
            f"{' and '.join(map(str, selected))} did not become the {request.alias} of "
            f"{request.model_name}. The verdict above gives the reason."
        )
