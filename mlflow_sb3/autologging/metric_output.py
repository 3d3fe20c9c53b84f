"""Pass the metrics of SB3's logger on to MLflow, and watch them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlflow_sb3.tracking.metric_writer import MetricWriter
from mlflow_sb3.tracking.run_logger import RunLogger


class MetricOutput(MetricWriter):
    """Output format of SB3's logger that logs to MLflow, and calls a function with the values."""

    def __init__(self, run_logger: RunLogger, on_metrics: Callable[[dict[str, Any]], None]) -> None:
        """Write to the run of ``run_logger``, and then call ``on_metrics``."""
        super().__init__(run_logger)
        self._on_metrics = on_metrics

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """Log all numbers as metrics; see ``MetricWriter.write``."""
        super().write(key_values, key_excluded, step)
        self._on_metrics(key_values)
