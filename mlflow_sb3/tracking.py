"""SB3's metrics to MLflow, off the training thread."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any, Self

import numpy as np
from mlflow import MlflowClient
from mlflow.entities import Metric
from stable_baselines3.common.logger import KVWriter

INTERVAL = 2.0
"""Seconds between two deliveries."""
_BATCH = 1000
"""Metrics that MLflow takes in one call."""


class MetricWriter(KVWriter):
    """Delivers numbers to a run from a thread of its own: ``write`` returns at once.

    An output format for ``stable_baselines3.common.logger.Logger``; keys stay SB3's own. Leaving its context delivers
    what is left.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._client = MlflowClient()
        self._waiting: list[Metric] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._deliver, name="mlflow-metrics", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closing.set()
        self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Take what SB3 dumps: numbers become points at this step; text, figures and what excludes ``mlflow`` do not."""
        now = time.time_ns() // 1_000_000
        points = [
            Metric(key, float(value), now, step)
            for key, value in key_values.items()
            if isinstance(value, (int, float, np.number)) and "mlflow" not in (key_excluded.get(key) or ())
        ]
        with self._lock:
            self._waiting += points

    def close(self) -> None:
        """Nothing to do: SB3 never closes an output format that it was given."""

    def _deliver(self) -> None:
        """Deliver until closed; stop at the first failure, which leaving the context raises."""
        try:
            while not self._closing.wait(INTERVAL):
                self._drain()
            self._drain()
        except Exception as error:  # noqa: BLE001 a thread has nobody else to tell
            self._failure = error

    def _drain(self) -> None:
        with self._lock:
            points, self._waiting = self._waiting, []
        for start in range(0, len(points), _BATCH):
            self._client.log_batch(self._run_id, metrics=points[start : start + _BATCH])
