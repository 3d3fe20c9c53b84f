"""Settings of MLflow that stand in the environment alone: obeyed, or changed for the time of one call."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.environment_variables import MLFLOW_ALLOW_PICKLE_DESERIALIZATION
from mlflow.exceptions import MlflowException


@contextmanager
def during(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables, and put back what was there before; for one thread at a time, as a process has one environment."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def check_unpickling_allowed(what: str) -> None:
    """Refuse where MLflow was told to unpickle nothing."""
    if not MLFLOW_ALLOW_PICKLE_DESERIALIZATION.get():  # type: ignore[no-untyped-call]
        raise MlflowException.invalid_parameter_value(
            f"{what} would unpickle, and MLFLOW_ALLOW_PICKLE_DESERIALIZATION is false; allow it where you trust the file."
        )
