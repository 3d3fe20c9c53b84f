from __future__ import annotations

import html
import logging
from dataclasses import replace

import mlflow
import pytest

from mlflow_sb3.promotion import promotion_report
from mlflow_sb3.promotion.record import PromotionRecord
from mlflow_sb3.reports import report_artifact
from mlflow_sb3.reports.html_report import Report
from tests.promotion.level_promotions import Levels, promote


def read_report() -> str:
    """Read report.html of the active run."""
    run = mlflow.active_run()
    assert run is not None
    text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/report.html")
    return html.unescape(str(text))


def get_headings(record: PromotionRecord) -> list[str]:
    report = promotion_report.build_promotion_report(record)
    return [section.heading for section in report.sections]


def test_a_promotion_logs_its_gate_and_the_champions(levels: Levels) -> None:
    promote(levels[2], force_reason="the <first> one")
    record = promote(levels[4])

    text = read_report()
    assert "<h1>levels/5: promoted</h1>" in text
    assert record.reason in text
    assert get_headings(record) == ["levels/5 against levels/3", "Versions that were champion"]
    assert '<th scope="row">5</th>' in text
    assert "promoted without a gate: the <first> one" in text


def test_a_tie_has_no_plot_of_differences(levels: Levels) -> None:
    promote(levels[2], force_reason="the first")
    record = promote(levels[3])

    gate, _ = promotion_report.build_promotion_report(record).sections
    assert [picture.alt[:15] for picture in gate.pictures] == ["Mean difference"]
    assert "<h1>levels/4: rejected after a tie</h1>" in read_report()


def test_without_common_seeds_the_quantiles_are_plotted(levels: Levels) -> None:
    record = promote(levels[4])
    assert record.evidence is not None
    unpaired = replace(record, evidence=replace(record.evidence, is_paired=False))

    gate = promotion_report.build_promotion_report(unpaired).sections[0]
    assert [picture.alt[:9] for picture in gate.pictures] == ["Quantiles"]


def test_a_forced_promotion_has_no_section_about_a_gate(levels: Levels) -> None:
    record = promote(levels[4], force_reason="the first")

    report = promotion_report.build_promotion_report(record)
    assert report.key_figures == []
    assert get_headings(record) == ["Versions that were champion"]


def test_a_section_whose_facts_cannot_be_read_is_left_out(
    levels: Levels, caplog: pytest.LogCaptureFixture
) -> None:
    record = promote(levels[4])
    challenger = replace(record.context.challenger, run_id="0" * 32)
    broken = replace(record, context=replace(record.context, challenger=challenger))

    assert get_headings(broken) == get_headings(record)
    assert "report.html lacks a section: MlflowException: Run with id=000" in caplog.text


def test_the_champion_gets_a_report_too(levels: Levels) -> None:
    promote(levels[4], force_reason="the first")
    promote(levels[4])

    assert "<h1>levels/5: already the champion</h1>" in read_report()


@pytest.mark.usefixtures("store")
def test_a_report_that_cannot_be_written_is_only_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> Report:
        raise ValueError("no facts")

    with caplog.at_level(logging.WARNING), mlflow.start_run():
        report_artifact.log_report(fail)

    assert "report.html was not logged: ValueError: no facts" in caplog.text
