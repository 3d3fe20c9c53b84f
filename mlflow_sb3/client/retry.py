"""Call a function that sends requests to an MLflow server, and return whether it succeeded."""

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

FAIL_FAST_ENV = {MLFLOW_HTTP_REQUEST_MAX_RETRIES.name: "1", MLFLOW_HTTP_REQUEST_TIMEOUT.name: "30"}
"""Environment variables that make a failing request fail early.

MLflow itself retries a failing request for minutes. The callers of this module retry instead.
"""

CONNECTION_ERRORS = (MlflowException, OSError, RequestException)
"""Exceptions that MLflow's client raises if the server does not answer or answers with an error."""


def try_call(
    function: Callable[[], None],
    *,
    on_error: Callable[[Exception], object] = lambda error: None,  # noqa: ARG005
) -> bool:
    """Call a function once, and return whether it succeeded. If not, the caller calls it again.

    Exceptions are logged, not raised. The level is ``DEBUG`` for ``CONNECTION_ERRORS``, which
    include every ``MlflowException``, because an unreachable server is common. The level is
    ``WARNING`` for all other exceptions.

    Args:
        function: The function.
        on_error: Called with the exception.
    """
    try:
        function()
    except CONNECTION_ERRORS as error:
        _logger.debug("request failed and will be repeated: %s", error)
        on_error(error)
        return False
    # Every artifact store raises exceptions of its own, and each of them must be retried.
    except Exception as error:  # noqa: BLE001
        _logger.warning("request failed and will be repeated: %s: %s", type(error).__name__, error)
        on_error(error)
        return False
    return True
