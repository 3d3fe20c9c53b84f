"""Check the connection to the tracking server, and hide the credentials in URIs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TypeVar

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.environment_variables import (
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
)
from mlflow.exceptions import MlflowException
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from mlflow_sb3.client import env_vars

ANSWER_TIMEOUT = 8
"""Seconds to wait for an answer of the server.

A slow network needs several seconds. ``check_connection`` has to fail within ten seconds.
"""
MAX_ATTEMPTS = 5
"""Number of attempts if a request fails quickly, as on a network that drops connections."""
_QUICK_FAILURE = 2.0
"""Seconds from the first attempt within which a failed request is repeated."""
_FIRST_PAUSE = 0.1
"""Seconds between the first attempt and the second one. Each further pause is twice as long."""
_DATABASE_TIMEOUT = 3
"""Seconds to wait for a connection to a database."""
_CREDENTIALS = re.compile(r"(?<=://)([^/:@\s]*)(:[^/\s]*)?@")
"""User and password, or a token, in front of the host of a URL."""
_DATABASE_CREDENTIALS = re.compile(r"(?<=://)([^:/]*)(:[^@]*)?@")
"""User and password in front of the host of a database URI.

SQLAlchemy allows slashes and spaces in the password.
"""
_SOURCE_TAGS = ("mlflow.source.name", "mlflow.source.git.repoURL")
"""Tags in which MLflow stores the URL of an MLflow Project."""
_ONE_EXPERIMENT = "name = 'Default'"
"""Filter that matches at most one experiment.

MLflow's server (3.17) checks the permissions of all matching experiments, one by one.
"""
_DATABASES = ("mssql", "mysql", "postgresql", "sqlite")
"""URI schemes of MLflow's database stores."""
_DRIVERS_WITH_TIMEOUT = ("mysqldb", "psycopg", "psycopg2", "pymysql")
"""Drivers with the argument ``connect_timeout``. Their default timeout is minutes."""

Result = TypeVar("Result")


def check_connection() -> None:
    """Check that the tracking server answers and accepts the user, within about ten seconds.

    MLflow's own retries take minutes.

    Raises:
        MlflowException: The server or the database does not answer, the server rejects the user,
            or an HTTP URI contains credentials.
    """
    uri = mlflow.get_tracking_uri()
    _check_no_credentials(uri)
    _check_no_credentials(mlflow.get_registry_uri())
    if _is_database(uri):
        _check_database(uri)
    _check_server(uri)


def call_with_short_timeout(function: Callable[[], Result], *, retries: int = 0) -> Result:
    """Call a function with a timeout of ``ANSWER_TIMEOUT`` seconds for each of its HTTP requests.

    If the server does not answer, and less than two seconds have passed since the first call, the
    function is called again after a short pause. There are at most ``MAX_ATTEMPTS`` calls in all.

    Args:
        function: Sends one or more requests to the server.
        retries: Number of times that MLflow repeats each request. Use 1 if ``function`` sends more
            than one request, because a server may close the connection between two requests.

    Raises:
        MlflowException: The server does not answer, or the last answer is an error.
    """
    variables = {
        MLFLOW_HTTP_REQUEST_MAX_RETRIES.name: str(retries),
        MLFLOW_HTTP_REQUEST_TIMEOUT.name: str(ANSWER_TIMEOUT),
    }
    start, attempts = time.monotonic(), 0
    with env_vars.override_env(variables):
        while True:
            attempts += 1
            try:
                return function()
            except MlflowException as error:
                has_failed_quickly = time.monotonic() - start <= _QUICK_FAILURE
                # MLflow uses INTERNAL_ERROR for a request without an answer.
                if (
                    error.error_code != "INTERNAL_ERROR"
                    or attempts == MAX_ATTEMPTS
                    or not has_failed_quickly
                ):
                    raise
                time.sleep(_FIRST_PAUSE * 2 ** (attempts - 1))


def hide_credentials(run: Run) -> None:
    """Remove tokens and passwords from the source tags of a run.

    MLflow stores the URL of a project there, which may be ``https://token@host/repository``.
    """
    for key in _SOURCE_TAGS:
        tag = run.data.tags.get(key, "")
        url = _remove_credentials(tag)
        if url != tag:
            MlflowClient().set_tag(run.info.run_id, key, url)


def redact_uri(uri: str) -> str:
    """Return a URI with ``***`` instead of the password or token, and without its query.

    The query of a database URI may also contain a password.
    """
    pattern = _DATABASE_CREDENTIALS if _is_database(uri) else _CREDENTIALS
    redacted = pattern.sub(lambda match: f"{match[1]}:***@" if match[2] else "***@", uri)
    return redacted.partition("?")[0]


def _check_no_credentials(uri: str) -> None:
    if uri.startswith("http") and _CREDENTIALS.search(uri):
        raise MlflowException.invalid_parameter_value(
            f"URI {redact_uri(uri)} contains credentials, which MLflow prints with every run. "
            "Remove them, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        )


def _check_database(uri: str) -> None:
    has_timeout = make_url(uri).get_driver_name() in _DRIVERS_WITH_TIMEOUT
    connect_args = {"connect_timeout": _DATABASE_TIMEOUT} if has_timeout else {}
    try:
        create_engine(uri, poolclass=NullPool, connect_args=connect_args).connect().close()
    except SQLAlchemyError as error:
        raise MlflowException(
            f"tracking store {redact_uri(uri)} does not answer: {error.args[0]}. "
            "Start it, or set MLFLOW_TRACKING_URI to another store."
        ) from error


def _check_server(uri: str) -> None:
    try:
        call_with_short_timeout(
            lambda: MlflowClient().search_experiments(
                ViewType.ALL, max_results=1, filter_string=_ONE_EXPERIMENT
            )
        )
    except SQLAlchemyError as error:
        raise MlflowException(
            f"tracking store {redact_uri(uri)} has tables that MLflow cannot use: "
            f"{str(error.args[0]).splitlines()[0]}. The process that created it was probably "
            "killed. If it has no runs yet, delete it; otherwise restore a backup."
        ) from error
    except MlflowException as error:
        if error.error_code == "UNAUTHENTICATED":
            raise MlflowException(
                f"tracking server {uri} rejects the user name or the password. "
                "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
            ) from error
        raise MlflowException(
            f"tracking server {redact_uri(uri)} does not answer: {error}. "
            "Start it, or set MLFLOW_TRACKING_URI to another server."
        ) from error


def _is_database(uri: str) -> bool:
    return uri.partition(":")[0].partition("+")[0] in _DATABASES


def _remove_credentials(url: str) -> str:
    """Return a URL without credentials, but keep the user name of an SSH URL.

    SSH needs the user name, such as ``git``, and it is no secret.
    """
    return _CREDENTIALS.sub(
        lambda match: f"{match[1]}@" if url[: match.start()].endswith("ssh://") else "", url
    )
