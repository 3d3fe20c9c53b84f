"""Log promotion records to the run of a promotion, and load them again."""

from __future__ import annotations

import json
from dataclasses import asdict

import mlflow
from matplotlib.figure import Figure
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mlflow_sb3.client import permissions
from mlflow_sb3.client.registry_client import RegistryClient
from mlflow_sb3.promotion import evidence, report_text, summary_text
from mlflow_sb3.promotion.record import (
    PROMOTION_SCHEMA,
    GateEvidence,
    PromotionContext,
    PromotionRecord,
)
from mlflow_sb3.registry.model_version import VERSION_TAG
from mlflow_sb3.reports.gate_plot import MeanDifference, PairedReturns, plot_pairs
from mlflow_sb3.runs import run_name

PROMOTION_JSON = "promotion.json"

VERDICT_TAG = "mlflow_sb3.verdict"


def get_active_run() -> Run:
    """Return the active run with its tags.

    Raises:
        MlflowException: No run is active.
    """
    active = mlflow.active_run()
    if active is None:
        raise MlflowException.invalid_parameter_value(
            "No run is active, and a promotion is recorded in a run. "
            "Call it inside of mlflow.start_run()."
        )
    return RegistryClient().get_run(active.info.run_id)


def log_evidence(record: PromotionRecord) -> None:
    """Log the metrics, the table and the figure of a gate to the active run.

    The metrics are logged on the model of the challenger too. Without evidence nothing is logged.
    """
    if record.evidence is None:
        return
    folder = f"promotion/{len(record.earlier) + 1}" if record.earlier else "promotion"
    metrics = evidence.build_metrics(record.evidence)
    permissions.log_metrics(metrics, record.context.challenger.model_id)
    mlflow.log_table(asdict(record.evidence.episodes), f"{folder}/episodes.json")
    mlflow.log_figure(plot_evidence(record, record.evidence), f"{folder}/returns.png")


def plot_evidence(record: PromotionRecord, results: GateEvidence) -> Figure:
    """Plot the returns of the pairs and the mean differences of a gate."""
    opponent = report_text.get_opponent_name(record.context)
    title = f"{record.verdict}: {record.context.challenger} against {opponent}"
    return plot_pairs(collect_returns(record.context, results, title))


def collect_returns(
    context: PromotionContext, results: GateEvidence, title: str = ""
) -> PairedReturns:
    """Collect what the plots of a gate show.

    Args:
        context: Versions of the gate.
        results: Results of the gate.
        title: Title of the figure; may be empty.
    """
    return PairedReturns(
        title=title,
        challenger=str(context.challenger),
        champion=report_text.get_opponent_name(context),
        challenger_returns=results.episodes.challenger_return,
        champion_returns=results.episodes.champion_return,
        challenger_mean=results.challenger_episodes.mean_return,
        champion_mean=results.champion_episodes.mean_return,
        differences=[
            MeanDifference(look.pairs, look.mean_difference, look.lower, look.upper)
            for look in results.looks
        ],
        min_improvement=results.gate.min_improvement,
        is_paired=results.is_paired,
    )


def log_record(record: PromotionRecord) -> None:
    """Log a record to the active run as ``promotion.json``, and name the run after the verdict."""
    mlflow.log_text(json.dumps(record.to_json(), indent=2, allow_nan=False), PROMOTION_JSON)
    challenger = record.context.challenger
    tags = {VERSION_TAG: str(challenger), VERDICT_TAG: record.verdict}
    if record.verdict == "rollback":
        name = f"rollback {challenger.name} -> version {challenger.number}"
    else:
        name = f"promote {challenger} -> {summary_text.name_verdict(record)}"
    mlflow.set_tags(tags | run_name.build_tags(name, record.reason))


def load_record(run_id: str) -> PromotionRecord:
    """Load the record of a run.

    Raises:
        MlflowException: The run does not exist, has no record, or its record has another schema.
    """
    run = RegistryClient().get_run(run_id)
    try:
        text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{PROMOTION_JSON}")
        content = json.loads(text)
    except (MlflowException, OSError, ValueError) as error:
        raise MlflowException.invalid_parameter_value(
            f"Run {run_id} has no readable {PROMOTION_JSON}. "
            "Pass the id of a run of the entry point promote."
        ) from error
    if content["schema"] != PROMOTION_SCHEMA:
        raise MlflowException.invalid_parameter_value(
            f"{PROMOTION_JSON} of run {run_id} has schema {content['schema']}, but this version "
            f"of mlflow-sb3 reads schema {PROMOTION_SCHEMA}. Use the version that wrote it."
        )
    return _parse_record(run_id, content)


def _parse_record(run_id: str, content: dict[str, object]) -> PromotionRecord:
    try:
        return PromotionRecord.from_json(content)
    except ValueError as error:
        raise MlflowException.invalid_parameter_value(
            f"{PROMOTION_JSON} of run {run_id} is incomplete or was edited: {error}. "
            "Promote the version again to get a new record."
        ) from error
