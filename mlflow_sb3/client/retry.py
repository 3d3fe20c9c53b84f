"""Short retries for calls that will be repeated anyway."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from mlflow.environment_variables import (
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
)
from mlflow.exceptions import MlflowException
from requests.exceptions import RequestException

_logger = logging.getLogger(__name__)

SHORT_RETRIES = {MLFLOW_HTTP_REQUEST_MAX_RETRIES.name: "1", MLFLOW_HTTP_REQUEST_TIMEOUT.name: "30"}
"""Settings for who delivers in the background: it tries again by itself, as long as it takes."""

CONNECTION_ERRORS = (MlflowException, OSError, RequestException)
"""What MLflow's client raises when a server or an artifact store does not answer, and when it refuses."""


def attempt(work: Callable[[], None]) -> bool:
    """Do what will be tried again; whether it went through. A server that is away is no news, everything else is."""
    try:
        work()
    except CONNECTION_ERRORS as error:
        _logger.debug("not delivered yet: %s", error)
        return False
    except Exception as error:  # noqa: BLE001 every kind of artifact store raises errors of its own, and who delivers has to go on
        _logger.warning("not delivered yet: %s: %s", type(error).__name__, error)
        return False
    return True


def now_ms() -> int:
    """Milliseconds since 1970, as MLflow counts time."""
    return time.time_ns() // 1_000_000
