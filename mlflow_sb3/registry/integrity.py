"""Download model versions, and check their files before any code of them is imported."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.utils.models import get_model_name_and_version
from mlflow.utils.uri import is_models_uri

from mlflow_sb3.client.registry_client import RegistryClient
from mlflow_sb3.registry import signing
from mlflow_sb3.registry.digest import hash_folder
from mlflow_sb3.registry.model_version import DIGEST_TAG, SIGNATURE_TAG, Version
from mlflow_sb3.registry.signing import KeyPath
from mlflow_sb3.registry.versions import find_version


@contextmanager
def fetch_version(version: Version, *, public_key: KeyPath | None = None) -> Iterator[Path]:
    """Download a model version and check its digest and signature.

    Args:
        version: Version with a digest.
        public_key: PEM file of the Ed25519 public key that must have signed the digest.

    Yields:
        A temporary folder with the files.

    Raises:
        MlflowException: The version has no digest, its files do not match the digest, or the key
            did not sign the digest.
    """
    if version.digest is None:
        raise MlflowException.invalid_parameter_value(
            f"Model version {version} has no tag {DIGEST_TAG}, so its files cannot be checked. "
            "Register it with mlflow_sb3.log_model."
        )
    if public_key is not None:
        _check_signature(version, version.digest, public_key)
    with download_model(version.uri) as folder:
        _check_digest(version, folder)
        yield folder


@contextmanager
def fetch_uri(model_uri: str, *, public_key: KeyPath | None = None) -> Iterator[Path]:
    """Download the model of any model URI.

    A registered version with a digest is checked as by ``fetch_version``.

    Args:
        model_uri: URI of the model, such as ``models:/name@champion`` or ``runs:/…/agent``.
        public_key: PEM file of the Ed25519 public key that must have signed the digest.

    Yields:
        A temporary folder with the files.

    Raises:
        MlflowException: A check failed, or a public key is set and the URI names no registered
            version.
    """
    version = resolve_version(model_uri)
    if version is None and public_key is not None:
        raise MlflowException.invalid_parameter_value(
            f"{model_uri} is not a registered model version, so it has no signature to verify. "
            "Use models:/name/3 or models:/name@alias."
        )
    if version is not None and (version.digest is not None or public_key is not None):
        with fetch_version(version, public_key=public_key) as folder:
            yield folder
    else:
        with download_model(model_uri) as folder:
            yield folder


def pin_version_uri(model_uri: str) -> str:
    """Return a URI with the version number in place of an alias or ``latest``.

    A URI that names no registered version is returned unchanged.
    """
    version = resolve_version(model_uri)
    return model_uri if version is None else version.uri


def resolve_version(model_uri: str) -> Version | None:
    """Return the registered version that a URI names by alias, number or ``latest``.

    The registry resolves the URI. Downloaded files are not trusted for that.

    Returns:
        The version. None if the URI names no registered version.

    Raises:
        MlflowException: The registered model or the version does not exist, or the URI is invalid.
    """
    if not is_models_uri(model_uri):
        return None
    name, _, alias = model_uri.rstrip("/").removeprefix("models:/").rpartition("@")
    if name and alias and "/" not in name + alias:
        return find_version(name, alias=alias)
    name, *number = get_model_name_and_version(  # type: ignore[no-untyped-call]
        RegistryClient(), model_uri.rstrip("/")
    )
    if not number:  # the URI holds the id of a logged model
        return None
    return find_version(name, number=int(number[0]))


@contextmanager
def download_model(uri: str) -> Iterator[Path]:
    """Download a model to a temporary folder, without the ``__pycache__`` folders.

    Python writes them next to code that was imported in place. They are not part of the model.
    """
    with TemporaryDirectory() as folder:
        path = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder))
        for cache in list(path.rglob("__pycache__")):
            shutil.rmtree(cache)
        yield path


def _check_digest(version: Version, folder: Path) -> None:
    if not any(path.is_file() for path in folder.rglob("*")):
        raise MlflowException.invalid_parameter_value(
            f"Model version {version} has no files, because its artifacts were deleted. "
            "Use another version, or register the agent again."
        )
    digest = hash_folder(folder)
    if digest != version.digest:
        raise MlflowException.invalid_parameter_value(
            f"Model version {version} changed after registration (digest {digest}, expected "
            f"{version.digest}). Register the agent again with mlflow_sb3.log_model."
        )


def _check_signature(version: Version, digest: str, public_key: KeyPath) -> None:
    if version.signature is None:
        raise MlflowException.invalid_parameter_value(
            f"Model version {version} is not signed: it has no tag {SIGNATURE_TAG}. "
            "Register it with mlflow_sb3.log_model(..., signing_key=...)."
        )
    if not signing.verify_digest(digest, version.signature, public_key):
        raise MlflowException.invalid_parameter_value(
            f"The signature of model version {version} is not valid for its digest {digest} and "
            f"the public key {os.fspath(public_key)!r}. Either another key signed the version, or "
            "its tags changed. Use the public key of the signer, or register the version again."
        )
