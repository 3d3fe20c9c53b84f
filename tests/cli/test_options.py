"""Tests of the parameter types and the shared options."""

from __future__ import annotations

from typing import Any

import click
import pytest

from mlflow_sb3.algorithms import algorithms
from mlflow_sb3.cli.options import JsonValue, OptionalValue, VersionNumber
from mlflow_sb3.cli.training_options import ALGORITHM_NAMES


def test_the_help_names_every_algorithm() -> None:
    *others, last = algorithms.ALGORITHMS

    assert f"{', '.join(others)} or {last}" == ALGORITHM_NAMES


@pytest.mark.parametrize(
    ("param_type", "text", "value"),
    [
        (JsonValue("{}"), '{"gamma": 0.9}', {"gamma": 0.9}),
        (JsonValue("[]"), '["module:Class"]', ["module:Class"]),
        (OptionalValue(click.INT), "", None),
        (OptionalValue(click.INT), "7", 7),
        (VersionNumber(), "", None),
        (VersionNumber(), "7", 7),
    ],
)
def test_a_text_is_converted(param_type: click.ParamType[Any], text: str, value: Any) -> None:
    assert param_type.convert(text, None, None) == value


@pytest.mark.parametrize(
    ("param_type", "text", "message"),
    [
        (JsonValue('{"g": 1}'), "{bad", "'{bad' is not valid JSON: .* Example: "),
        (JsonValue('{"g": 1}'), "[1]", "'\\[1\\]' is not a JSON object. Example: "),
        (JsonValue('["a"]'), "{}", "'{}' is not a JSON list. Example: "),
        (OptionalValue(click.INT), "high", "'high' is not a valid integer"),
        (VersionNumber(), "two", "'two' is not the number of a model version"),
        (VersionNumber(), "0", "'0' is not the number of a model version"),
    ],
)
def test_an_invalid_text_is_refused(
    param_type: click.ParamType[Any], text: str, message: str
) -> None:
    with pytest.raises(click.BadParameter, match=message):
        param_type.convert(text, None, None)
