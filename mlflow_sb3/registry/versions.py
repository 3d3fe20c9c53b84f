"""Find versions of registered models, and change their aliases and tags."""

from __future__ import annotations

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mlflow_sb3.client import connection, permissions, registry_client
from mlflow_sb3.client.registry_client import RegistryClient
from mlflow_sb3.client.suggestion import suggest
from mlflow_sb3.registry.model_version import Version

STATE_TAG = "mlflow_sb3.state"
"""Tag of a version: ``CHALLENGER``, ``REJECTED``, ``ROLLED_BACK``, the alias that it has, or
``former`` and the alias that it had."""
CHALLENGER, REJECTED, ROLLED_BACK = "challenger", "rejected", "rolled back"
ROLLED_BACK_TAG = "mlflow_sb3.rolled_back"
"""Tag that earlier releases set on a version from which a rollback removed the alias."""

_NOT_FOUND_CODES = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""Error codes of MLflow for a missing model or version, and for a missing alias."""


def check_model_exists(name: str) -> None:
    """Check that a registered model exists.

    Raises:
        MlflowException: It does not exist, or the user has no permission to read it.
    """
    try:
        RegistryClient().get_registered_model(name)
    except MlflowException as error:
        if error.error_code == permissions.PERMISSION_DENIED_CODE:
            raise permissions.build_permission_error("READ", f"registered model {name}") from error
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        registry_uri = connection.redact_uri(mlflow.get_registry_uri())
        known = [model.name for model in RegistryClient().search_registered_models()]
        raise MlflowException.invalid_parameter_value(
            f"Registered model {name!r} does not exist on {registry_uri}.{suggest(name, known)} "
            "Train an agent and register it with that name first."
        ) from error


def find_version(name: str, *, alias: str | None = None, number: int | None = None) -> Version:
    """Return the version with a number, or else with an alias.

    Raises:
        MlflowException: The model or the version does not exist. The message lists the aliases.
    """
    client = RegistryClient()
    try:
        if number is not None:
            return Version.from_mlflow(client.get_model_version(name, str(number)))
        return Version.from_mlflow(client.get_model_version_by_alias(name, str(alias)))
    except MlflowException as error:
        if error.error_code not in (*_NOT_FOUND_CODES, permissions.PERMISSION_DENIED_CODE):
            raise
        check_model_exists(name)
        message = _explain_missing_version(name, alias, number)
        raise MlflowException.invalid_parameter_value(message) from error


def find_champion(name: str, alias: str) -> Version | None:
    """Return the version with an alias, or None if no version has it.

    Raises:
        MlflowException: The registered model does not exist.
    """
    try:
        return Version.from_mlflow(RegistryClient().get_model_version_by_alias(name, alias))
    except MlflowException as error:
        if error.error_code not in (*_NOT_FOUND_CODES, permissions.PERMISSION_DENIED_CODE):
            raise
        check_model_exists(name)
        if error.error_code == permissions.PERMISSION_DENIED_CODE:
            raise
        return None


def has_version(name: str, number: int) -> bool:
    """Return whether a version still exists, and False if it was deleted."""
    try:
        RegistryClient().get_model_version(name, str(number))
    except MlflowException as error:
        if error.error_code not in _NOT_FOUND_CODES:
            raise
        return False
    return True


def find_version_of_run(name: str, run_id: str, tags: dict[str, str]) -> Version | None:
    """Return the latest version of a registered model that a run logged.

    Args:
        name: Name of the registered model.
        run_id: Run that logged the model.
        tags: Tags that the version must have.

    Returns:
        The version, or None if there is none.
    """
    entities = [
        entity
        for entity in find_versions_of_runs(name, [run_id])
        if tags.items() <= entity.tags.items()
    ]
    if not entities:
        return None
    return Version.from_mlflow(max(entities, key=lambda entity: int(entity.version)))


def find_versions_of_runs(name: str, run_ids: list[str]) -> list[ModelVersion]:
    """Return the versions of a registered model that some runs logged. Send one request."""
    if not run_ids:
        return []
    quoted_ids = ", ".join(f"'{run_id}'" for run_id in run_ids)
    return list(
        RegistryClient().search_model_versions(
            f"{registry_client.build_name_filter(name)} and run_id IN ({quoted_ids})",
            max_results=1000,
        )
    )


def is_rolled_back(entity: ModelVersion) -> bool:
    """Return whether a rollback removed the alias from a version, and no promotion followed."""
    return entity.tags.get(STATE_TAG) == ROLLED_BACK or ROLLED_BACK_TAG in entity.tags


def remove_tag(version: Version, key: str) -> None:
    """Delete a tag of a version if it has that tag."""
    client, number = RegistryClient(), str(version.number)
    if key in client.get_model_version(version.name, number).tags:
        client.delete_model_version_tag(version.name, number, key)


def remove_alias(version: Version, alias: str) -> None:
    """Delete an alias if it points to this version."""
    current = find_champion(version.name, alias)
    if current is not None and current.number == version.number:
        RegistryClient().delete_registered_model_alias(version.name, alias)


def set_alias(name: str, alias: str, number: int) -> None:
    """Point an alias to a version. If another version has that alias, it is removed there."""
    RegistryClient().set_registered_model_alias(name, alias, str(number))


def _explain_missing_version(name: str, alias: str | None, number: int | None) -> str:
    missing = f"alias {alias!r}" if number is None else f"version {number}"
    aliases = RegistryClient().get_registered_model(name).aliases
    listing = ", ".join(f"{key} (version {value})" for key, value in sorted(aliases.items()))
    hint = f"Its aliases are {listing}." if listing else "It has no aliases yet."
    remedy = ""
    if number is None:
        remedy = f"{suggest(str(alias), aliases)} Give version=NUMBER to choose a version."
    return f"Registered model {name} has no {missing}. {hint}{remedy}"
