"""Pass the metrics of SB3's logger on to MLflow, and watch one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from mlflow_sb3.client.timestamps import now_ms
from mlflow_sb3.tracking.metric_writer import MetricWriter
from mlflow_sb3.tracking.run_logger import MetricPoint, RunLogger

GRADIENT_PREFIX = "gradient_norm/"
"""Prefix of the metrics with the norms of gradients."""


class MetricOutput(MetricWriter):
    """Output format of SB3's logger that logs to MLflow.

    While it is used, it is one of the ``output_formats`` of a model's logger.
    """

    def __init__(
        self,
        run_logger: RunLogger,
        model: BaseAlgorithm,
        *,
        has_gradient_norms: bool,
        on_metrics: Callable[[dict[str, Any]], None],
    ) -> None:
        """Write to the run of ``run_logger``.

        Args:
            run_logger: Logger of the run.
            model: Algorithm that is trained.
            has_gradient_norms: Whether to log the norms of the gradients with the other metrics.
            on_metrics: Called with the values after they were logged.
        """
        super().__init__(run_logger)
        self._model = model
        self._has_gradient_norms = has_gradient_norms
        self._on_metrics = on_metrics

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """Log all numbers as metrics; see ``MetricWriter.write``."""
        super().write(key_values, key_excluded, step)
        if self._has_gradient_norms:
            timestamp = now_ms()
            self._run_logger.log_metrics(
                MetricPoint(f"{GRADIENT_PREFIX}{name}", norm, timestamp, step)
                for name, norm in compute_gradient_norms(self._model)
            )
        self._on_metrics(key_values)


def compute_gradient_norms(model: BaseAlgorithm) -> Iterator[tuple[str, float]]:
    """Compute the L2 norm of the last gradient of each part of a policy, and of all together.

    SB3's on-policy algorithms clip gradients to ``max_grad_norm`` before these norms are computed.

    Returns:
        Pairs of the name of a part, such as ``"actor"`` or ``"all"``, and its norm. Empty before
        the first gradient step.
    """
    squares: dict[str, float] = {}
    for name, parameter in model.policy.named_parameters():
        if parameter.grad is not None:
            part = name.partition(".")[0]
            square = float(torch.sum(parameter.grad**2))
            squares[part] = squares.get(part, 0.0) + square
    for part, square in squares.items():
        yield part, square**0.5
    if squares:
        yield "all", sum(squares.values()) ** 0.5
