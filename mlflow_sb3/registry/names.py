"""Names of registered models and of aliases: what MLflow takes, and what promotions keep for themselves."""

from __future__ import annotations

import re

from mlflow.exceptions import MlflowException

CHALLENGER = "challenger"
"""Alias of the version that was registered last."""


def default_model_name(env_id: str, algo: str) -> str:
    """The name to register an agent under: ``cartpole-v1-dqn`` for DQN on CartPole-v1; the module in front of an id is left away."""
    return re.sub(r"[^a-z0-9_]+", "-", f"{env_id.rpartition(':')[2]}-{algo}".lower())


def check_model_name(name: str) -> None:
    """Refuse what MLflow refuses as the name of a registered model, before the work for it is done."""
    if not name.strip() or re.search("[/:]", name) or name in (".", ".."):
        raise MlflowException.invalid_parameter_value(
            f"no registered model can be named {name!r}; leave out / and :, as in 'cartpole-v1-dqn'."
        )


def check_alias(alias: str) -> None:
    """Refuse what MLflow refuses as an alias, before the work for it is done."""
    if not re.fullmatch(r"[\w-]{1,255}", alias) or re.fullmatch(r"latest|v\d+", alias.lower()):
        raise MlflowException.invalid_parameter_value(
            f"alias {alias!r} cannot be set; give letters, digits, _ and -, and neither 'latest' nor 'v1', which MLflow keeps for itself."
        )


def check_champion_alias(alias: str) -> None:
    """Refuse an alias that no champion can bear.

    Raises:
        MlflowException: MLflow refuses it, or it says something else here.
    """
    check_alias(alias)
    if alias == CHALLENGER or alias.startswith("previous-"):
        raise MlflowException.invalid_parameter_value(
            f"alias {alias!r} is moved by promotions themselves; give another one for the champion, such as 'champion'."
        )
