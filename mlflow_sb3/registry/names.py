"""Check names of registered models and aliases before any work starts."""

from __future__ import annotations

import re

from mlflow.exceptions import MlflowException

CHALLENGER_ALIAS = "challenger"
"""Alias that the step ``log_model`` gives to the version that it registers."""


def get_default_model_name(env_id: str, algo: str) -> str:
    """Return the default name of a registered model.

    DQN on CartPole-v1 gives ``cartpole-v1-dqn``. The module of an environment id such as
    ``my.pkg:Env-v0`` is left out.
    """
    return re.sub(r"[^a-z0-9_]+", "-", f"{env_id.rpartition(':')[2]}-{algo}".lower())


def check_model_name(name: str) -> None:
    """Check that MLflow accepts the name of a registered model.

    Raises:
        MlflowException: MLflow does not accept the name.
    """
    if not name.strip() or re.search("[/:]", name) or name in (".", ".."):
        raise MlflowException.invalid_parameter_value(
            f"{name!r} is not a valid name for a registered model. "
            "Use a name with letters or digits, and without '/' and ':', such as 'cartpole-v1-dqn'."
        )


def check_alias(alias: str) -> None:
    """Check that MLflow accepts an alias.

    Raises:
        MlflowException: MLflow does not accept the alias.
    """
    if not re.fullmatch(r"[\w-]{1,255}", alias) or re.fullmatch(r"latest|v\d+", alias.lower()):
        raise MlflowException.invalid_parameter_value(
            f"{alias!r} is not a valid alias. Use 1 to 255 letters, digits, '_' and '-'. "
            "MLflow reserves 'latest' and names such as 'v1'."
        )


def check_champion_alias(alias: str) -> None:
    """Check that an alias can mark a champion.

    Raises:
        MlflowException: MLflow does not accept the alias, or promotions use it for another
            version.
    """
    check_alias(alias)
    if alias == CHALLENGER_ALIAS or alias.startswith("previous-"):
        raise MlflowException.invalid_parameter_value(
            f"Alias {alias!r} cannot mark a champion, because promotions use it for another "
            "version. Use another alias, such as 'champion'."
        )
