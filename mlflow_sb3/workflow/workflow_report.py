"""Log the report of a call of ``main``: training, gate, evaluation and champions."""

from __future__ import annotations

from functools import partial

from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from mlflow_sb3.client.timestamps import format_time, now_ms
from mlflow_sb3.promotion import gate_section, promotion_run
from mlflow_sb3.promotion.record import PromotionRecord
from mlflow_sb3.registry.model_version import VERSION_TAG
from mlflow_sb3.reports import champions_section, report_artifact, run_sections
from mlflow_sb3.reports.html_report import KeyFigure, Report, Section, Table
from mlflow_sb3.reports.number_format import format_number
from mlflow_sb3.workflow.summary import Summary, format_duration


def log_workflow_report(summary: Summary) -> None:
    """Log ``report.html`` to the active run."""
    report_artifact.log_report(partial(build_workflow_report, summary))


def build_workflow_report(summary: Summary) -> Report:
    """Build the report from the runs of the steps and from the registered model."""
    trained, evaluated = summary.trained, summary.evaluated
    record = promotion_run.load_record(summary.promoted.info.run_id)
    context = record.context
    return Report(
        title=f"{summary.name.removeprefix('main ')}: {summary.outcome}",
        summary=summary.promoted.data.tags.get(MLFLOW_RUN_NOTE, ""),
        key_figures=_list_key_figures(record, evaluated),
        sections=report_artifact.collect_sections(
            [
                partial(gate_section.build_gate_section, record),
                partial(run_sections.build_training_section, trained),
                partial(run_sections.build_evaluation_section, evaluated),
                partial(run_sections.build_video_section, evaluated),
                partial(
                    champions_section.build_champions_section,
                    context.challenger.name,
                    context.alias,
                ),
                partial(_build_steps_section, summary),
            ]
        ),
        source=f"Written at {format_time(now_ms())} UTC.",
    )


def _list_key_figures(record: PromotionRecord, evaluated: Run) -> list[KeyFigure]:
    """Return the numbers of the gate and of the evaluation."""
    figures = []
    if record.evidence is not None:
        figures += gate_section.list_key_figures(record.context, record.evidence)
    metrics = evaluated.data.metrics
    version = evaluated.data.tags.get(VERSION_TAG, "the agent")
    figures.append(
        KeyFigure(
            f"evaluation of {version}",
            format_number(metrics.get("evaluation/mean_return")),
            f"mean return, {metrics.get('evaluation/episodes', 0):.0f} new episodes",
        )
    )
    return figures


def _build_steps_section(summary: Summary) -> Section:
    """Return the table of the steps."""
    rows = [(name, run.info.run_id, format_duration(run)) for name, run in summary.steps.items()]
    return Section(
        "Steps",
        tables=[Table("Runs of the steps", ("step", "run", "time"), rows, has_texts=True)],
    )
