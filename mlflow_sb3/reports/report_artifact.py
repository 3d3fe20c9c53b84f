"""Log a report to the active run. A failure is only a warning, because the result matters more."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import mlflow

from mlflow_sb3.reports.html_report import Report, Section, render_report

REPORT_HTML = "report.html"

_logger = logging.getLogger(__name__)


def log_report(build_report: Callable[[], Report]) -> None:
    """Build a report and log it as ``report.html`` to the active run."""
    try:
        mlflow.log_text(render_report(build_report()), REPORT_HTML)
    except Exception as error:  # noqa: BLE001 each store, font and backend has its own errors
        _logger.warning("%s was not logged: %s: %s", REPORT_HTML, type(error).__name__, error)


def collect_sections(builders: Iterable[Callable[[], Section | None]]) -> list[Section]:
    """Call the builders, and leave out a section that is None or whose facts cannot be read."""
    sections = []
    for build in builders:
        try:
            section = build()
        except Exception as error:  # noqa: BLE001 as above
            _logger.warning("%s lacks a section: %s: %s", REPORT_HTML, type(error).__name__, error)
            continue
        if section is not None:
            sections.append(section)
    return sections
