"""Name a run after what it does, and describe it."""

from __future__ import annotations

import itertools

import mlflow
from mlflow.utils import name_utils
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE

_MAX_NAME_LENGTH = 250
"""MLflow's databases store at most this number of characters of a name."""


def build_tags(name: str, description: str = "") -> dict[str, str]:
    """Return the tags that set the name and the description of the active run.

    The name is left out if the run has a name that MLflow did not invent, and the description if
    the run was started with one.

    Args:
        name: Name of the run, such as ``"evaluate cartpole-v1-dqn/2"``. Use ASCII, because some
            databases store no other characters.
        description: Markdown text. Empty: do not set it.
    """
    active = mlflow.active_run()
    if active is None:
        return {}
    tags = {}
    if description and MLFLOW_RUN_NOTE not in active.data.tags:
        tags[MLFLOW_RUN_NOTE] = description
    if is_generated(active.info.run_name):
        tags[MLFLOW_RUN_NAME] = name[:_MAX_NAME_LENGTH]
    return tags


def is_generated(name: str | None) -> bool:
    """Return whether MLflow invented the name of a run, such as ``grandiose-sheep-123``."""
    if not name:
        return True
    predicate, _, rest = name.partition("-")
    noun, _, number = rest.partition("-")
    return {predicate, noun} <= _list_words() and number.isdecimal()


def _list_words() -> set[str]:
    """Return the words of MLflow's names. MLflow has no function that recognizes such a name."""
    lists = (value for value in vars(name_utils).values() if isinstance(value, list))
    return set(itertools.chain.from_iterable(lists))
