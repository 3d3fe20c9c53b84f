"""Read the YAML files of rl_zoo3 without running the code that their tags name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from mlflow.exceptions import MlflowException


class _ZooLoader(yaml.SafeLoader):
    """``SafeLoader`` that also reads an ``OrderedDict`` and a tuple."""


def _build_ordered_dict(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> dict[Any, Any]:
    """Build a dict from the arguments of ``OrderedDict``, a list with one list of pairs."""
    arguments = loader.construct_sequence(node, deep=True)
    try:
        return dict(*arguments)
    except (TypeError, ValueError) as error:
        raise yaml.constructor.ConstructorError(
            problem=f"OrderedDict with the arguments {arguments}", problem_mark=node.start_mark
        ) from error


def _build_list(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> list[Any]:
    return loader.construct_sequence(node, deep=True)


_PYTHON = "tag:yaml.org,2002:python"
_ZooLoader.add_constructor(f"{_PYTHON}/object/apply:collections.OrderedDict", _build_ordered_dict)
_ZooLoader.add_constructor(f"{_PYTHON}/tuple", _build_list)


def read_zoo_yaml(path: Path) -> dict[str, Any]:
    """Read ``args.yml`` or ``config.yml`` of rl_zoo3.

    The only Python tags that are read are those of ``OrderedDict`` and tuples. They become dicts
    and lists.

    Raises:
        MlflowException: The file is no YAML file with keys and values, or it has another Python
            tag.
    """
    try:
        # A subclass of SafeLoader, so no tag runs code.
        values = yaml.load(path.read_text(), Loader=_ZooLoader)  # noqa: S506
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MlflowException.invalid_parameter_value(
            f"{path} cannot be read: {' '.join(str(error).split())}. "
            "Only the YAML files that rl_zoo3 writes can be read."
        ) from error
    if not isinstance(values, dict):
        raise MlflowException.invalid_parameter_value(
            f"{path} contains {type(values).__name__}, not keys and values. "
            "Only the YAML files that rl_zoo3 writes can be read."
        )
    return values
