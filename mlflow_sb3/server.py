"""The tracking server: whether it answers."""

from __future__ import annotations

import mlflow
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from mlflow_sb3 import settings

_DATABASES = ("mssql", "mysql", "postgresql", "sqlite")


def check() -> None:
    """Connect to the database, or ask the server for one experiment, and give up in seconds where MLflow's own retries take minutes.

    Raises:
        MlflowException: It does not answer.
    """
    uri = mlflow.get_tracking_uri()
    try:
        if uri.partition(":")[0].partition("+")[0] in _DATABASES:
            create_engine(uri, poolclass=NullPool).connect().close()
    except SQLAlchemyError as error:
        raise MlflowException(
            f"tracking store {shown(uri)} does not answer: {error.args[0]}. Set MLFLOW_TRACKING_URI to one that does."
        ) from error
    with settings.during({MLFLOW_HTTP_REQUEST_MAX_RETRIES.name: "1", MLFLOW_HTTP_REQUEST_TIMEOUT.name: "10"}):
        try:
            MlflowClient().search_experiments(ViewType.ALL, max_results=1)
        except MlflowException as error:
            raise MlflowException(
                f"tracking server {shown(uri)} does not answer: {error}. Set MLFLOW_TRACKING_URI to one that does."
            ) from error


def shown(uri: str) -> str:
    """A URI without its password."""
    try:
        return repr(make_url(uri))
    except ArgumentError:  # a folder, or a word such as databricks
        return uri
