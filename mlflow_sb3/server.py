"""The tracking server: whether it answers."""

from __future__ import annotations

import mlflow
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES, MLFLOW_HTTP_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException

from mlflow_sb3 import settings


def check() -> None:
    """Ask the tracking server for one experiment, and give up in seconds where MLflow's own retries take minutes.

    Raises:
        MlflowException: It does not answer.
    """
    uri = mlflow.get_tracking_uri()
    with settings.during({MLFLOW_HTTP_REQUEST_MAX_RETRIES.name: "1", MLFLOW_HTTP_REQUEST_TIMEOUT.name: "10"}):
        try:
            MlflowClient().search_experiments(ViewType.ALL, max_results=1)
        except MlflowException as error:
            raise MlflowException(f"tracking server {uri} does not answer: {error}. Set MLFLOW_TRACKING_URI to one that does.") from error
