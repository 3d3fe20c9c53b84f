"""Read parameters of a command from a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import yaml

from mlflow_sb3.client.suggestion import suggest

OPTION = "config"
"""Name of the option with the path of the file."""


def apply_config(context: click.Context, text: str) -> None:
    """Set the parameters that have their default values to the values of a YAML file.

    An MLflow Project passes all parameters, so a parameter with its default counts as not set.

    Args:
        context: Context of a command whose options were parsed.
        text: Content of the file, a mapping of parameters to values. Objects and lists may be
            nested.

    Raises:
        click.BadParameter: The text is not a mapping, or a parameter is unknown or invalid.
    """
    options = {_get_name(option): option for option in context.command.params}
    del options[OPTION]
    for key, value in _parse(text).items():
        if key not in options:
            known = ", ".join(options)
            raise click.BadParameter(
                f"{key!r} is no parameter.{suggest(str(key), options)} Use {known}.",
                param_hint=f"--{OPTION}",
            )
        option = options[key]
        default = option.type_cast_value(context, option.get_default(context))
        if value is not None and context.params[str(option.name)] == default:
            context.params[str(option.name)] = option.type_cast_value(context, value)


def read_config(path: str) -> str:
    """Return the content of the file.

    Raises:
        click.BadParameter: The file cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(
            f"{path!r} cannot be read: {error}. A relative path is relative to the project folder.",
            param_hint=f"--{OPTION}",
        ) from error


def _parse(text: str) -> dict[Any, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        message = " ".join(str(error).split())
        raise click.BadParameter(
            f"The file is not valid YAML: {message}", param_hint=f"--{OPTION}"
        ) from error
    if not isinstance(content, dict):
        raise click.BadParameter(
            "The file is not a mapping. Write one parameter per line, such as 'algo: ppo'.",
            param_hint=f"--{OPTION}",
        )
    return content


def _get_name(option: click.Parameter) -> str:
    """Return the name of a parameter as in ``MLproject``, such as ``env_kwargs``."""
    return option.opts[0].removeprefix("--").replace("-", "_")
