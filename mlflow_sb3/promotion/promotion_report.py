"""Log the report of a promotion: the gate, the training of the challenger, and the champions."""

from __future__ import annotations

from functools import partial

from mlflow_sb3.client.registry_client import RegistryClient
from mlflow_sb3.client.timestamps import format_time
from mlflow_sb3.promotion import gate_section, summary_text
from mlflow_sb3.promotion.record import PromotionContext, PromotionRecord
from mlflow_sb3.reports import champions_section, report_artifact, run_sections
from mlflow_sb3.reports.html_report import Report, Section


def log_promotion_report(record: PromotionRecord) -> None:
    """Log ``report.html`` to the active run. Call this after the alias has moved."""
    report_artifact.log_report(partial(build_promotion_report, record))


def build_promotion_report(record: PromotionRecord) -> Report:
    """Build the report from a record, the run of the training, and the registered model."""
    context, results = record.context, record.evidence
    name, alias = context.challenger.name, context.alias
    return Report(
        title=f"{context.challenger}: {summary_text.name_verdict(record)}",
        summary=record.reason,
        key_figures=[] if results is None else gate_section.list_key_figures(context, results),
        sections=report_artifact.collect_sections(
            [
                partial(gate_section.build_gate_section, record),
                partial(_build_training_section, context),
                partial(champions_section.build_champions_section, name, alias),
            ]
        ),
        source=_describe_source(context),
    )


def _build_training_section(context: PromotionContext) -> Section | None:
    """Return the training of the challenger. None if another program logged the model."""
    run_id = context.challenger.run_id
    if run_id is None:
        return None
    return run_sections.build_training_section(RegistryClient().get_run(run_id))


def _describe_source(context: PromotionContext) -> str:
    user = f", started by {context.user}" if context.user else ""
    commit = f", commit {context.commit}" if context.commit else ""
    return f"Promotion in run {context.run_id} at {format_time(context.time)} UTC{user}{commit}."
