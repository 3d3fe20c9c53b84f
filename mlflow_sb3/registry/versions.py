"""Versions of registered models: found by alias or number, their files checked by digest, their aliases moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mlflow_sb3.client import connection, permissions, registry_client
from mlflow_sb3.client.registry_client import RegistryClient
from mlflow_sb3.registry.model_version import Version, from_mlflow

if TYPE_CHECKING:
    pass

ROLLED_BACK_TAG = "mlflow_sb3.rolled_back"
"""Tag of a model version that lost the alias by a rollback: the run of the rollback."""

_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow says where there is no such model or version, and where there is no such alias."""


def check_model_exists(name: str) -> None:
    """Refuse a registered model that does not exist.

    Raises:
        MlflowException: There is none of that name.
    """
    try:
        RegistryClient().get_registered_model(name)
    except MlflowException as error:
        if error.error_code == permissions.PERMISSION_DENIED_CODE:
            raise permissions.permission_error("READ", f"registered model {name}") from error
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise MlflowException.invalid_parameter_value(
            f"registered model {name!r} does not exist on {connection.redact_uri(mlflow.get_registry_uri())}; "
            "train and log an agent of that name first."
        ) from error


def find_version(name: str, *, alias: str | None = None, number: int | None = None) -> Version:
    """Find a version by its number, or else by its alias.

    Raises:
        MlflowException: There is no such model, alias or version; the message names those that there are.
    """
    client = RegistryClient()
    try:
        if number is not None:
            return from_mlflow(client.get_model_version(name, str(number)))
        return from_mlflow(client.get_model_version_by_alias(name, str(alias)))
    except MlflowException as error:
        if error.error_code not in (*_MISSING, permissions.PERMISSION_DENIED_CODE):
            raise
        check_model_exists(name)
        raise MlflowException.invalid_parameter_value(_missing(name, alias, number)) from error


def find_champion(name: str, alias: str) -> Version | None:
    """The version that bears an alias, or None when none does yet."""
    try:
        return from_mlflow(RegistryClient().get_model_version_by_alias(name, alias))
    except MlflowException as error:
        if error.error_code not in (*_MISSING, permissions.PERMISSION_DENIED_CODE):
            raise
        check_model_exists(name)
        if error.error_code == permissions.PERMISSION_DENIED_CODE:
            raise
        return None


def version_exists(name: str, number: int) -> bool:
    """Whether a registered model has a version, which may have been deleted."""
    try:
        RegistryClient().get_model_version(name, str(number))
    except MlflowException as error:
        if error.error_code not in _MISSING:
            raise
        return False
    return True


def find_version_of_run(name: str, run_id: str, tags: dict[str, str]) -> Version | None:
    """The last version of a registered model that comes from a run, with these tags; None when there is none."""
    found = [one for one in versions_of_runs(name, [run_id]) if tags.items() <= one.tags.items()]
    return from_mlflow(max(found, key=lambda one: int(one.version))) if found else None


def versions_of_runs(name: str, run_ids: list[str]) -> list[ModelVersion]:
    """The versions of a registered model that come from these runs, in one call."""
    if not run_ids:
        return []
    runs = ", ".join(f"'{run_id}'" for run_id in run_ids)
    return list(
        RegistryClient().search_model_versions(
            f"{registry_client.name_filter(name)} and run_id IN ({runs})", max_results=1000
        )
    )


def remove_tag(version: Version, key: str) -> None:
    """Take a tag from a version, if that bears it."""
    client, number = RegistryClient(), str(version.number)
    if key in client.get_model_version(version.name, number).tags:
        client.delete_model_version_tag(version.name, number, key)


def remove_alias(version: Version, alias: str) -> None:
    """Take an alias from a version, if that bears it."""
    bearer = find_champion(version.name, alias)
    if bearer is not None and bearer.number == version.number:
        RegistryClient().delete_registered_model_alias(version.name, alias)


def set_alias(name: str, alias: str, number: int) -> None:
    """Point an alias to a version; no other version bears it then."""
    RegistryClient().set_registered_model_alias(name, alias, str(number))


def _missing(name: str, alias: str | None, number: int | None) -> str:
    wanted = f"alias {alias!r}" if number is None else f"version {number}"
    return f"registered model {name} has no {wanted}; its aliases are {_aliases(RegistryClient().get_registered_model(name).aliases)}."


def _aliases(aliases: dict[str, str]) -> str:
    return (
        ", ".join(f"{alias} (version {number})" for alias, number in sorted(aliases.items()))
        or "none yet"
    )
