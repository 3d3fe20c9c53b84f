"""Read parameters of a command from a YAML file."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import click
import yaml
from click.core import ParameterSource

from mlflow_sb3.client.suggestion import suggest

OPTION = "config"
"""Name of the option with the path of the file."""


class _Loader(yaml.SafeLoader):
    """Loader that reads ``1e-3`` as a number, as YAML 1.2 does. For PyYAML it is a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)


def apply_config(context: click.Context, text: str) -> None:
    """Set the parameters that the user did not pass to the values of a YAML file.

    An MLflow Project passes all parameters, so one with its default value counts as not passed.

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
        if value is not None and not _is_passed(context, option):
            context.params[str(option.name)] = _convert(context, option, value)


def read_config(path: str) -> str:
    """Return the content of the file.

    Raises:
        click.BadParameter: The file cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(
            f"{path!r} cannot be read: {error}. Pass an absolute path.",
            param_hint=f"--{OPTION}",
        ) from error


def _parse(text: str) -> dict[Any, Any]:
    try:
        content = yaml.load(text, _Loader)  # noqa: S506  # a subclass of SafeLoader
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


def _is_passed(context: click.Context, option: click.Parameter) -> bool:
    name = str(option.name)
    if "MLFLOW_RUN_ID" not in os.environ:  # not called by mlflow run
        return context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    default = option.type_cast_value(context, option.get_default(context))
    return bool(context.params[name] != default)


def _convert(context: click.Context, option: click.Parameter, value: Any) -> Any:
    """Convert a value of the file as the same text on the command line."""
    if isinstance(value, (dict, list)):
        if not option.type.name.startswith("JSON"):
            raise click.BadParameter(
                f"{value!r} is not a {option.type.name}.", context, option, f"--{OPTION}"
            )
        value = json.dumps(value)
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    return option.type_cast_value(context, str(value))


def _get_name(option: click.Parameter) -> str:
    """Return the name of a parameter as in ``MLproject``, such as ``env_kwargs``."""
    return option.opts[0].removeprefix("--").replace("-", "_")
