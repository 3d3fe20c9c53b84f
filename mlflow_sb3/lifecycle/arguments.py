"""Check and convert arguments that the command line checks by their type."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException

if TYPE_CHECKING:
    from mlflow_sb3.registry.signing import KeyPath


def check_minimum(name: str, value: float | None, minimum: int) -> None:
    """Check that a number is large enough. None means that the argument is not set.

    Raises:
        MlflowException: The number is too small.
    """
    if value is not None and not value >= minimum:
        raise MlflowException.invalid_parameter_value(
            f"{name}={value!r} is too small. Use {minimum} or more."
        )


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Check that an argument has one of several values.

    Raises:
        MlflowException: The value is another one.
    """
    if value not in choices:
        raise MlflowException.invalid_parameter_value(
            f"{name}={value!r} is unknown. Use {' or '.join(map(repr, choices))}."
        )


def copy_json(name: str, value: Any) -> Any:
    """Return a copy with the types of JSON, such as lists instead of tuples.

    Raises:
        MlflowException: JSON cannot represent the value.
    """
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        raise MlflowException.invalid_parameter_value(
            f"{name}={value!r} cannot be stored as JSON: {error}. Use numbers, texts, lists and "
            "dicts, so that the training can be repeated."
        ) from error


def to_text(path: KeyPath | None) -> str:
    """Return a path as text, which is empty for None."""
    return "" if path is None else os.fspath(path)


def to_version_number(version: int | str) -> int:
    """Return the number of a version, which MLflow's REST API gives as text.

    Raises:
        MlflowException: The value is no positive integer.
    """
    text = str(version)
    if not text.isdecimal() or int(text) < 1:
        raise MlflowException.invalid_parameter_value(
            f"version={version!r} is not the number of a model version. Pass a positive integer, "
            "or leave version out."
        )
    return int(text)
