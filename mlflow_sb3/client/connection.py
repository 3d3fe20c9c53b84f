"""The tracking server: whether it answers, and lets us in."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TypeVar

import mlflow
from mlflow import MlflowClient
from mlflow.entities import ViewType
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
"""Seconds that a server has for one answer: longer than a slow network takes, and short enough to refuse a silent one within ten."""
MAX_TRIES = 3
"""How often a server is asked that fails at once, as behind a network that cuts connections."""
_AT_ONCE = 1.0
_LOGIN = re.compile(r"(?<=://)([^/:@\s]*)(:[^/\s]*)?@")
"""What stands before the host in an address: a user and a password, or a token alone."""
_LOGIN_OF_DATABASE = re.compile(r"(?<=://)([^:/]*)(:[^@]*)?@")
"""The same, as SQLAlchemy reads it: slashes and spaces may be in a password."""
_SOURCES = ("mlflow.source.name", "mlflow.source.git.repoURL")
"""Tags in which MLflow keeps where a project comes from, with the token that may stand in that."""
_ONE = "name = 'Default'"
"""Matches one experiment at the most: among all, MLflow's server (3.17) looks for the first that the user may read one by one."""
_DATABASES = ("mssql", "mysql", "postgresql", "sqlite")
_PATIENT = ("mysqldb", "psycopg", "psycopg2", "pymysql")
"""Drivers that wait for a database for minutes, unless they are told the seconds; others have another word for that, or wait for none."""

Answer = TypeVar("Answer")


def check_connection() -> None:
    """Connect to the database, or ask the server for one experiment, and give up in seconds where MLflow's own retries take minutes.

    Raises:
        MlflowException: It does not answer, or does not know the user; or a password stands where MLflow would print it.
    """
    uri = mlflow.get_tracking_uri()
    for one in (uri, mlflow.get_registry_uri()):
        if one.startswith("http") and _LOGIN.search(one):
            raise MlflowException.invalid_parameter_value(
                f"{redact_uri(one)} holds a login, which MLflow prints with every run; "
                "leave it out, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
            )
    try:
        if _is_database(uri):
            in_time = {"connect_timeout": 3} if make_url(uri).get_driver_name() in _PATIENT else {}
            create_engine(uri, poolclass=NullPool, connect_args=in_time).connect().close()
    except SQLAlchemyError as error:
        raise MlflowException(
            f"tracking store {redact_uri(uri)} does not answer: {error.args[0]}. Set MLFLOW_TRACKING_URI to one that does."
        ) from error
    try:
        with_short_timeout(
            lambda: MlflowClient().search_experiments(
                ViewType.ALL, max_results=1, filter_string=_ONE
            )
        )
    except MlflowException as error:
        if error.error_code == "UNAUTHENTICATED":
            raise MlflowException(
                f"tracking server {uri} does not know this user with this password; "
                "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
            ) from error
        raise MlflowException(
            f"tracking server {redact_uri(uri)} does not answer: {error}. Set MLFLOW_TRACKING_URI to one that does."
        ) from error


def with_short_timeout(call: Callable[[], Answer], *, retries: int = 0) -> Answer:
    """Call what asks the server, and wait ``ANSWER`` seconds for each answer; where it fails at once, call it again.

    Args:
        call: Makes one request, or several.
        retries: Of each of several: on a slow network the server may have closed the connection when the second one arrives.

    Raises:
        MlflowException: There was no answer, or the last one was an error.
    """
    start, tries = time.monotonic(), 0
    with env_vars.temporary_env(
        {
            MLFLOW_HTTP_REQUEST_MAX_RETRIES.name: str(retries),
            MLFLOW_HTTP_REQUEST_TIMEOUT.name: str(ANSWER_TIMEOUT),
        }
    ):
        while True:
            tries += 1
            try:
                return call()
            except MlflowException as error:
                if (
                    error.error_code != "INTERNAL_ERROR"
                    or tries == MAX_TRIES
                    or time.monotonic() - start > _AT_ONCE
                ):
                    raise


def hide_credentials(run_id: str) -> None:
    """Take a token out of the tags in which MLflow says where a project comes from, such as https://token@host/repository."""
    client = MlflowClient()
    tags = client.get_run(run_id).data.tags
    for key in _SOURCES:
        if key in tags and (hidden := _without_login(tags[key])) != tags[key]:
            client.set_tag(run_id, key, hidden)


def redact_uri(uri: str) -> str:
    """A URI without its password, or the token in its place, and without its query, which may hold one too."""
    login = _LOGIN_OF_DATABASE if _is_database(uri) else _LOGIN
    return login.sub(lambda found: f"{found[1]}:***@" if found[2] else "***@", uri).partition("?")[
        0
    ]


def _is_database(uri: str) -> bool:
    return uri.partition(":")[0].partition("+")[0] in _DATABASES


def _without_login(address: str) -> str:
    """An address without login; SSH needs the name of the user, which is no secret there."""
    return _LOGIN.sub(
        lambda found: f"{found[1]}@" if address[: found.start()].endswith("ssh://") else "", address
    )
