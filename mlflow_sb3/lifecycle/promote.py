"""Promote versions from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mlflow.exceptions import MlflowException

from mlflow_sb3.envs import env_spec
from mlflow_sb3.lifecycle.arguments import check_choice, to_text, to_version_number
from mlflow_sb3.lifecycle.results import PromoteResult
from mlflow_sb3.promotion.promotion_request import (
    PromotionRequest,
    PromotionRequestError,
    run_promotion,
)
from mlflow_sb3.promotion.record import PromotionRecord
from mlflow_sb3.runs import step_run

if TYPE_CHECKING:
    from mlflow_sb3.registry.signing import KeyPath


def promote(
    name: str,
    version: int | str | None = None,
    *,
    alias: str = PromotionRequest.alias,
    n_episodes: int = PromotionRequest.episodes,
    alpha: float = PromotionRequest.alpha,
    alpha_per_reign: float | None = PromotionRequest.alpha_per_reign,
    min_improvement: float = PromotionRequest.min_improvement,
    min_return: float | None = PromotionRequest.min_return,
    env: str = PromotionRequest.environment,
    rule: Literal["test", "force"] = PromotionRequest.rule,
    reason: str = PromotionRequest.reason,
    approval: Literal["none", "required"] = PromotionRequest.approval,
    public_key: KeyPath | None = None,
    allow_pickle: bool = PromotionRequest.allow_pickle,
    progress_bar: bool = True,
) -> PromoteResult:
    """Compare a version with the champion on the same seeds, and promote it if it is better.

    The promotion has a run of its own. If a run is active, it is a child run.

    Args:
        name: Name of the registered model.
        version: Number of the version to promote. By default, the version with the alias
            ``challenger``.
        alias: Alias that the winner gets.
        n_episodes: Largest number of pairs of episodes to play.
        alpha: Nominal upper bound for the probability of promoting a challenger that is not better.
        alpha_per_reign: Error probability that all gates until the next promotion share, instead
            of ``alpha``.
        min_improvement: Mean return by which the challenger must exceed the champion.
        min_return: Mean return that the challenger must reach.
        env: Environment that both agents play in: a Gymnasium id, ``EnvSpec`` JSON, or
            ``"challenger"`` or ``"champion"`` for the training environment of that agent. By
            default, the training environment, which must be the same for both.
        rule: ``"force"`` to promote without a gate.
        reason: Reason for ``rule="force"``.
        approval: ``"required"`` to move the alias only to a version with the tag
            ``approval=approved``.
        public_key: PEM file of the Ed25519 public key that must have signed both versions.
        allow_pickle: As in ``load_policy``.
        progress_bar: Show a progress bar on standard error.

    Raises:
        MlflowException: An argument is invalid, the version does not exist, cannot be loaded or
            cannot be served, or the user has no permission.
    """
    if env.lstrip().startswith("{"):  # may come from a model of another person
        env_spec.make_from_spec(env).close()  # refuses modules that are not trusted
    check_choice("rule", rule, ("test", "force"))
    check_choice("approval", approval, ("none", "required"))
    records: list[PromotionRecord] = []
    try:
        request = PromotionRequest(
            name,
            number=None if version is None else to_version_number(version),
            alias=alias,
            episodes=n_episodes,
            alpha=alpha,
            alpha_per_reign=alpha_per_reign,
            min_improvement=min_improvement,
            min_return=min_return,
            environment=env,
            rule=rule,
            reason=reason,
            approval=approval,
            public_key=to_text(public_key),
            allow_pickle=allow_pickle,
        )
        with step_run.start_step_run():
            run_promotion(request, on_record=records.append, progress=progress_bar)
    except PromotionRequestError as error:
        raise MlflowException.invalid_parameter_value(str(error)) from error
    return PromoteResult.from_record(records[-1])
