"""SB3's metrics to a tracker."""

from __future__ import annotations

from typing import Any

import numpy as np
from stable_baselines3.common.logger import KVWriter

from mlflow_sb3.client import retry
from mlflow_sb3.tracking.run_logger import RunLogger


class MetricWriter(KVWriter):
    """An output format for ``stable_baselines3.common.logger.Logger``: hands numbers on to a tracker; keys stay SB3's own."""

    def __init__(self, tracker: RunLogger) -> None:
        self._tracker = tracker

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        """Take what SB3 dumps: numbers become points at this step; text, figures and what excludes ``mlflow`` do not."""
        now = retry.now_ms()
        self._tracker.points(
            (key, float(value), now, step)
            for key, value in key_values.items()
            if isinstance(value, (int, float, np.number))
            and "mlflow" not in (key_excluded.get(key) or ())
        )

    def close(self) -> None:
        """Nothing to do: SB3 never closes an output format that it was given."""
