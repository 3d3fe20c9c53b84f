"""Download versions and check their files before anything is imported."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.utils.models import get_model_name_and_version
from mlflow.utils.uri import is_models_uri

from mlflow_sb3.client.registry_client import RegistryClient
from mlflow_sb3.registry.digest import model_digest
from mlflow_sb3.registry.model_version import DIGEST_TAG, SIGNATURE_TAG, Version
from mlflow_sb3.registry.versions import find_version

if TYPE_CHECKING:
    from mlflow_sb3.registry.signing import KeyPath


@contextmanager
def fetch_version(version: Version, *, public_key: KeyPath | None = None) -> Iterator[Path]:
    """Download a version's files, and check them before anything that they name is imported.

    Args:
        version: With a digest.
        public_key: PEM file of an Ed25519 key; the digest has to be signed by its owner.

    Raises:
        MlflowException: The files are not those that were registered, or no digest was registered with them, or the
            digest is not signed with that key.
    """
    if version.digest is None:
        raise MlflowException.invalid_parameter_value(
            f"model version {version} has no tag {DIGEST_TAG}, so its files cannot be checked; register it with mlflow_sb3.log_model."
        )
    if public_key is not None:
        _check_signature(version, version.digest, public_key)
    with download_model(version.uri) as folder:
        if not any(path.is_file() for path in folder.rglob("*")):
            raise MlflowException.invalid_parameter_value(
                f"model version {version} has no files any more: its artifacts were deleted; take another version, or register it again."
            )
        if (found := model_digest(folder)) != version.digest:
            raise MlflowException.invalid_parameter_value(
                f"model version {version} has the digest {found}, but its tag says {version.digest}: "
                "its files changed after registration; train and register it again."
            )
        yield folder


@contextmanager
def fetch_uri(model_uri: str, *, public_key: KeyPath | None = None) -> Iterator[Path]:
    """Download the files behind any model URI; those of a version with a digest are checked as ``fetch`` does.

    Raises:
        MlflowException: As ``fetch``; or there is a public key, and the URI names no registered version.
    """
    version = _registered(model_uri)
    if version is None and public_key is not None:
        raise MlflowException.invalid_parameter_value(
            f"{model_uri} is no version of a registered model, so it bears no signature for a public key to verify; "
            "give models:/name/3 or models:/name@alias."
        )
    if version is not None and (version.digest is not None or public_key is not None):
        with fetch_version(version, public_key=public_key) as folder:
            yield folder
    else:
        with download_model(model_uri) as folder:
            yield folder


def pin_version_uri(model_uri: str) -> str:
    """A URI that goes on naming the same version, when an alias or ``latest`` would not."""
    version = _registered(model_uri)
    return model_uri if version is None else version.uri


def _check_signature(version: Version, digest: str, public_key: KeyPath) -> None:
    from mlflow_sb3.registry import signing

    if version.signature is None:
        raise MlflowException.invalid_parameter_value(
            f"model version {version} has no tag {SIGNATURE_TAG}, so nobody vouches for it; "
            "register it with mlflow_sb3.log_model(..., signing_key=...)."
        )
    if not signing.verify(digest, version.signature, public_key):
        raise MlflowException.invalid_parameter_value(
            f"the signature of model version {version} does not fit its digest {digest} and the public key {os.fspath(public_key)!r}: "
            "another key signed it, or its tags have changed; give the key of who signed it, or register it again."
        )


def _registered(model_uri: str) -> Version | None:
    """The version that a URI names by an alias, a number or ``latest``: asked of the registry, never of the files that came."""
    if not is_models_uri(model_uri):
        return None
    named = get_model_name_and_version(RegistryClient(), model_uri.rstrip("/"))  # type: ignore[no-untyped-call]
    return (
        find_version(named[0], number=int(named[1])) if len(named) > 1 else None
    )  # the id of a LoggedModel comes alone


@contextmanager
def download_model(uri: str) -> Iterator[Path]:
    """A private copy, without the caches that Python writes beside code that was imported in place."""
    with TemporaryDirectory() as folder:
        path = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder))
        for cache in list(path.rglob("__pycache__")):
            shutil.rmtree(cache)
        yield path
