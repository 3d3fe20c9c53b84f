"""Write the values of SB3's logger to a ``RunLogger``."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.logger import KVWriter

from mlflow_sb3.client.timestamps import now_ms
from mlflow_sb3.tracking.run_logger import MetricPoint, RunLogger


class MetricWriter(KVWriter):
    """Log SB3's training metrics to MLflow, under SB3's own keys.

    Pass it to ``stable_baselines3.common.logger.Logger`` as an output format.
    """

    def __init__(self, run_logger: RunLogger) -> None:
        """Write to the run of ``run_logger``."""
        self._run_logger = run_logger

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """Log all numbers as metrics. Skip text, figures and keys that exclude ``"mlflow"``.

        Args:
            key_values: Values that SB3's logger dumps.
            key_excluded: Output formats that must not log a key.
            step: Environment steps of the training so far.
        """
        timestamp = now_ms()
        self._run_logger.log_metrics(
            MetricPoint(key, float(value), timestamp, step)
            for key, value in key_values.items()
            if isinstance(value, (int, float, np.number))
            and "mlflow" not in (key_excluded.get(key) or ())
        )

    def close(self) -> None:
        """Do nothing: the owner of the ``RunLogger`` closes it."""
