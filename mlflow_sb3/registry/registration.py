"""Register a logged model with its digest and signature."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_sb3.client.registry_client import RegistryClient
from mlflow_sb3.registry.digest import model_digest
from mlflow_sb3.registry.integrity import download_model
from mlflow_sb3.registry.model_version import DIGEST_TAG, SIGNATURE_TAG, Version
from mlflow_sb3.registry.signing import check_keys
from mlflow_sb3.registry.versions import find_version, set_alias

if TYPE_CHECKING:
    from mlflow_sb3.registry.signing import KeyPath


def register_version(
    model_id: str,
    name: str,
    *,
    alias: str | None = None,
    tags: dict[str, str] | None = None,
    await_registration_for: int | None = 300,
    signing_key: KeyPath | None = None,
) -> Version:
    """Register a logged model, with the digest of its stored files, and its signature, as tags from the beginning.

    Args:
        model_id: Of an MLflow LoggedModel, ``m-…``.
        name: Created if there is no such registered model.
        alias: To set on the new version; there is no version when it cannot be set, unless this user may not delete it.
        tags: Of the version, besides its digest.
        await_registration_for: Seconds to wait for the version to become ready.
        signing_key: PEM file of an Ed25519 private key, to sign the digest with.

    Raises:
        MlflowException: The key cannot sign, or the alias cannot be set.
    """
    check_keys(signing_key)
    uri = f"models:/{model_id}"
    with download_model(uri) as folder:
        all_tags = (tags or {}) | _tags(model_digest(folder), signing_key)
    registered = mlflow.register_model(
        uri, name, tags=all_tags, await_registration_for=await_registration_for
    )
    if alias is not None:
        try:
            set_alias(name, alias, int(registered.version))
        except MlflowException:
            with suppress(
                MlflowException
            ):  # as of who may register a version and not delete it: why there is no alias counts
                RegistryClient().delete_model_version(name, str(registered.version))
            raise
    return find_version(name, number=int(registered.version))


def _tags(digest: str, signing_key: KeyPath | None) -> dict[str, str]:
    if signing_key is None:
        return {DIGEST_TAG: digest}
    from mlflow_sb3.registry import signing

    return {DIGEST_TAG: digest, SIGNATURE_TAG: signing.sign(digest, signing_key)}
