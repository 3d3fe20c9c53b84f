"""Register a logged model with its digest and, with a signing key, its signature."""

from __future__ import annotations

from contextlib import suppress

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_sb3.client import permissions
from mlflow_sb3.client.registry_client import RegistryClient
from mlflow_sb3.registry import signing
from mlflow_sb3.registry.digest import hash_folder
from mlflow_sb3.registry.integrity import download_model
from mlflow_sb3.registry.model_version import DIGEST_TAG, SIGNATURE_TAG, Version
from mlflow_sb3.registry.signing import KeyPath
from mlflow_sb3.registry.versions import find_version, set_alias


def register_version(
    model_id: str,
    name: str,
    *,
    alias: str | None = None,
    tags: dict[str, str] | None = None,
    await_registration_for: int | None = 300,
    signing_key: KeyPath | None = None,
) -> Version:
    """Register a logged model as a new version.

    MLflow creates the version with its digest as a tag, so no reader sees it without a digest. With
    a signing key, its signature is a tag from the beginning too.

    Args:
        model_id: Id of the logged model, ``m-…``.
        name: Name of the registered model. It is created if it does not exist.
        alias: Alias to set on the new version. If that fails, the version is deleted again, unless
            the user has no permission to delete it.
        tags: More tags of the version. They cannot replace the digest. With a signing key, they
            cannot replace the signature either.
        await_registration_for: How long to wait until the version is ready, in seconds. None: do
            not wait.
        signing_key: PEM file of the Ed25519 private key that signs the digest.

    Raises:
        MlflowException: The key file cannot be read or is not an Ed25519 private key, the alias
            cannot be set, or the user lacks a permission on the registered model.
    """
    signing.check_keys(signing_key)
    uri = f"models:/{model_id}"
    with download_model(uri) as folder:
        digest = hash_folder(folder)
    try:
        entity = mlflow.register_model(
            uri,
            name,
            tags=(tags or {}) | _build_digest_tags(digest, signing_key),
            await_registration_for=await_registration_for,
        )
    except MlflowException as error:
        if error.error_code == permissions.PERMISSION_DENIED_CODE:
            raise permissions.build_permission_error("EDIT", f"registered model {name}") from error
        raise
    number = int(entity.version)
    if alias is not None:
        _set_alias_or_delete(name, alias, number)
    return find_version(name, number=number)


def _build_digest_tags(digest: str, signing_key: KeyPath | None) -> dict[str, str]:
    if signing_key is None:
        return {DIGEST_TAG: digest}
    return {DIGEST_TAG: digest, SIGNATURE_TAG: signing.sign_digest(digest, signing_key)}


def _set_alias_or_delete(name: str, alias: str, number: int) -> None:
    """Set the alias of a new version, and delete the version if that fails."""
    try:
        set_alias(name, alias, number)
    except MlflowException:
        # A user may have no permission to delete the version. The first error matters more.
        with suppress(MlflowException):
            RegistryClient().delete_model_version(name, str(number))
        raise
