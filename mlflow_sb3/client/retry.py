"""Calls to an MLflow server that the caller repeats until they succeed."""

from __future__ import annotations

import logging
from collections.abc import Callable

from mlflow.environment_variables import (
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
)
from mlflow.exceptions import MlflowException
from requests.exceptions import RequestException

_logger = logging.getLogger(__name__)

SHORT_RETRIES = {MLFLOW_HTTP_REQUEST_MAX_RETRIES.name: "1", MLFLOW_HTTP_REQUEST_TIMEOUT.name: "30"}
"""Environment variables that make a failing request return early.

MLflow itself retries a failing request for minutes. The callers of this module repeat it instead.
"""

CONNECTION_ERRORS = (MlflowException, OSError, RequestException)
"""Exceptions of MLflow's client for a request that gets no answer or an error as the answer."""


def try_call(function: Callable[[], None]) -> bool:
    """Call a function that the caller will repeat, and return whether it succeeded.

    Exceptions are logged, not raised. The level is ``DEBUG`` for ``CONNECTION_ERRORS``, because an
    unreachable server is common, and ``WARNING`` for all others.
    """
    try:
        function()
    except CONNECTION_ERRORS as error:
        _logger.debug("request failed and will be repeated: %s", error)
        return False
    # Every artifact store raises exceptions of its own, and each of them must be retried.
    except Exception as error:  # noqa: BLE001
        _logger.warning("request failed and will be repeated: %s: %s", type(error).__name__, error)
        return False
    return True
