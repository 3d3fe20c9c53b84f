"""Register a logged model with its digest and, with a signing key, its signature."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.models.model import ENV_VAR_FILE_NAME, MLMODEL_FILE_NAME

from mlflow_sb3.client import permissions
from mlflow_sb3.client.registry_client import RegistryClient
from mlflow_sb3.registry import loader, signing
from mlflow_sb3.registry.digest import combine_digests, hash_file, hash_folder
from mlflow_sb3.registry.integrity import download_model
from mlflow_sb3.registry.model_version import (
    DIGEST_TAG,
    MACHINE_SIGNATURE_TAG,
    SIGNATURE_TAG,
    Version,
)
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
    machine_key: KeyPath | None = None,
    files: Mapping[Path, str] | None = None,
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
        machine_key: Key of this machine, which signs the digest too; see ``is_registered_here``.
        files: Result of ``hash_files``, if this process has just logged the model. The digest is
            then made from it, so that a change on the server is found when the version is loaded.
            By default, the model is downloaded.

    Raises:
        MlflowException: The key file cannot be read or is not an Ed25519 private key, the flavors
            of the model have changed on the server, the alias cannot be set, or the user lacks a
            permission on the registered model.
    """
    signing.check_keys(signing_key)
    uri = f"models:/{model_id}"
    digest = _hash_model(uri) if files is None else _hash_own_model(model_id, files)
    signatures = {SIGNATURE_TAG: signing_key, MACHINE_SIGNATURE_TAG: machine_key}
    digest_tags = {DIGEST_TAG: digest} | {
        tag: signing.sign_digest(digest, key) for tag, key in signatures.items() if key is not None
    }
    try:
        entity = mlflow.register_model(
            uri,
            name,
            tags=(tags or {}) | digest_tags,
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


def is_registered_here(
    version: Version, machine_key: KeyPath, *, signing_key: KeyPath | None = None
) -> bool:
    """Return whether this user registered a version on this machine, with this signing key.

    Other tags do not show that, because other users can set them.

    Args:
        version: Version to check.
        machine_key: Private key of this user on this machine.
        signing_key: Private key that must have signed the version. None: it must not be signed.
    """
    if version.digest is None or (version.signature is None) != (signing_key is None):
        return False
    entity = RegistryClient().get_model_version(version.name, str(version.number))
    signatures = {machine_key: entity.tags.get(MACHINE_SIGNATURE_TAG, "")}
    if signing_key is not None:
        signatures[signing_key] = version.signature or ""
    return all(
        signing.has_signed(key, version.digest, signature) for key, signature in signatures.items()
    )


def _hash_model(uri: str) -> str:
    with download_model(uri) as folder:
        return hash_folder(folder)


def _hash_own_model(model_id: str, files: Mapping[Path, str]) -> str:
    """Return the digest of a model that this process has just logged.

    MLflow added keys to MLmodel while it logged the model, so that file is downloaded. If the model
    reads environment variables with secrets, MLflow also wrote a file with their names.

    Raises:
        MlflowException: MLmodel on the server loads the model in another way than this package.
    """
    location = mlflow.get_logged_model(model_id).artifact_location
    with TemporaryDirectory() as folder:

        def download(name: str) -> Path:
            uri = f"{location}/{name}"
            return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder))

        digests = {**files, Path(MLMODEL_FILE_NAME): hash_file(download(MLMODEL_FILE_NAME))}
        loader.check_loader(f"The logged model {model_id}", Path(folder))
        if Model.load(folder).env_vars:
            digests[Path(ENV_VAR_FILE_NAME)] = hash_file(download(ENV_VAR_FILE_NAME))
        return combine_digests(digests)


def _set_alias_or_delete(name: str, alias: str, number: int) -> None:
    """Set the alias of a new version, and delete the version if that fails."""
    try:
        set_alias(name, alias, number)
    except MlflowException:
        # A user may have no permission to delete the version. The first error matters more.
        with suppress(MlflowException):
            RegistryClient().delete_model_version(name, str(number))
        raise
