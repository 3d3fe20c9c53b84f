"""Versions of registered models: found by alias or number, their files checked by digest, their aliases moved."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.utils.models import get_model_name_and_version
from mlflow.utils.uri import is_models_uri

from mlflow_sb3 import names, rights, server
from mlflow_sb3.client import Client

if TYPE_CHECKING:
    from mlflow_sb3.signing import KeyPath

ROLLED_BACK = "mlflow_sb3.rolled_back"
"""Tag of a model version that lost the alias by a rollback: the run of the rollback."""
SCORE = "eval/kept_mean_reward"
"""Metric of a training run: the mean return of the kept agent over the fresh episodes of the choice."""
DIGEST = "mlflow_sb3.digest"
"""Tag of a model version: SHA-256 over a manifest of its files."""
SIGNATURE = "mlflow_sb3.signature"
"""Tag of a model version: Ed25519 signature of its digest, in base64."""

_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow says where there is no such model or version, and where there is no such alias."""
_PAGE, _PAGES = 100, 10
"""Trainings that one call is about, whose ids have room in one address, and how often the next ones are asked for."""
_WRITTEN_BY_MLFLOW = Path("registered_model_meta")
"""MLflow writes this file into a model that it downloads; it is no part of the model, and nothing is read from it."""


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    name: str
    number: int
    model_id: str
    run_id: str | None
    digest: str | None
    signature: str | None = None

    def __str__(self) -> str:
        return f"{self.name}/{self.number}"

    @property
    def uri(self) -> str:
        """The URI that MLflow loads the version by."""
        return f"models:/{self}"


def check_exists(name: str) -> None:
    """Refuse a registered model that does not exist.

    Raises:
        MlflowException: There is none of that name.
    """
    try:
        Client().get_registered_model(name)
    except MlflowException as error:
        if error.error_code == rights.DENIED:
            raise rights.refusal("READ", f"registered model {name}") from error
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise MlflowException.invalid_parameter_value(
            f"registered model {name!r} does not exist on {server.shown(mlflow.get_registry_uri())}; "
            "train and log an agent of that name first."
        ) from error


def find(name: str, *, alias: str | None = None, number: int | None = None) -> Version:
    """Find a version by its number, or else by its alias.

    Raises:
        MlflowException: There is no such model, alias or version; the message names those that there are.
    """
    client = Client()
    try:
        if number is not None:
            return _version(client.get_model_version(name, str(number)))
        return _version(client.get_model_version_by_alias(name, str(alias)))
    except MlflowException as error:
        if error.error_code not in (*_MISSING, rights.DENIED):
            raise
        check_exists(name)
        raise MlflowException.invalid_parameter_value(_missing(name, alias, number)) from error


def champion(name: str, alias: str) -> Version | None:
    """The version that bears an alias, or None when none does yet."""
    try:
        return _version(Client().get_model_version_by_alias(name, alias))
    except MlflowException as error:
        if error.error_code not in (*_MISSING, rights.DENIED):
            raise
        check_exists(name)
        if error.error_code == rights.DENIED:
            raise
        return None


def best(name: str, alias: str, experiment_id: str, top: int) -> list[Version]:
    """The versions whose trainings in an experiment scored best, the best one first, without the champion and what was rolled back.

    Only the thousand best trainings of the experiment are looked at.

    Raises:
        MlflowException: There is none.
    """
    reigning = champion(name, alias)
    chosen: list[Version] = []
    for run_ids in _best_runs(experiment_id):
        versions = [found for found in _of_runs(name, run_ids) if ROLLED_BACK not in found.tags]
        last = {found.run_id: _version(found) for found in sorted(versions, key=lambda found: int(found.version))}
        scored = [last[run_id] for run_id in run_ids if run_id in last]
        chosen += [found for found in scored if reigning is None or found.number != reigning.number]
        if len(chosen) >= top:
            break
    if not chosen:
        raise MlflowException.invalid_parameter_value(
            f"no version of {name} but the champion comes from a training of this experiment; name the experiment, or train first."
        )
    return chosen[:top]


def _best_runs(experiment_id: str) -> Iterator[list[str]]:
    """The ids of an experiment's trainings by their scores, the best one first, a page at a time."""
    order, token = [f"metrics.`{SCORE}` DESC"], None
    for _ in range(_PAGES):
        page = Client().search_runs([experiment_id], f"metrics.`{SCORE}` > -1e308", order_by=order, max_results=_PAGE, page_token=token)
        yield [run.info.run_id for run in page]
        token = page.token
        if not token:
            return


def exists(name: str, number: int) -> bool:
    """Whether a registered model has a version, which may have been deleted."""
    try:
        Client().get_model_version(name, str(number))
    except MlflowException as error:
        if error.error_code not in _MISSING:
            raise
        return False
    return True


def of_run(name: str, run_id: str, tags: dict[str, str]) -> Version | None:
    """The last version of a registered model that comes from a run, with these tags; None when there is none."""
    found = [one for one in _of_runs(name, [run_id]) if tags.items() <= one.tags.items()]
    return _version(max(found, key=lambda one: int(one.version))) if found else None


def _of_runs(name: str, run_ids: list[str]) -> list[ModelVersion]:
    """The versions of a registered model that come from these runs, in one call."""
    if not run_ids:
        return []
    runs = ", ".join(f"'{run_id}'" for run_id in run_ids)
    return list(Client().search_model_versions(f"{names.as_filter(name)} and run_id IN ({runs})", max_results=1000))


def drop_tag(version: Version, key: str) -> None:
    """Take a tag from a version, if that bears it."""
    client, number = Client(), str(version.number)
    if key in client.get_model_version(version.name, number).tags:
        client.delete_model_version_tag(version.name, number, key)


def drop_alias(version: Version, alias: str) -> None:
    """Take an alias from a version, if that bears it."""
    bearer = champion(version.name, alias)
    if bearer is not None and bearer.number == version.number:
        Client().delete_registered_model_alias(version.name, alias)


def register(
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
    with _downloaded(uri) as folder:
        all_tags = (tags or {}) | _tags(digest(folder), signing_key)
    registered = mlflow.register_model(uri, name, tags=all_tags, await_registration_for=await_registration_for)
    if alias is not None:
        try:
            set_alias(name, alias, int(registered.version))
        except MlflowException:
            with suppress(MlflowException):  # as of who may register a version and not delete it: why there is no alias counts
                Client().delete_model_version(name, str(registered.version))
            raise
    return find(name, number=int(registered.version))


def check_keys(signing_key: KeyPath | None, public_key: KeyPath | None = None) -> None:
    """Refuse keys that cannot sign or verify, before the work that they are for is done."""
    if signing_key is not None or public_key is not None:
        from mlflow_sb3 import signing

        for key, check in ((signing_key, signing.check_private_key), (public_key, signing.check_public_key)):
            if key is not None:
                check(key)


def set_alias(name: str, alias: str, number: int) -> None:
    """Point an alias to a version; no other version bears it then."""
    Client().set_registered_model_alias(name, alias, str(number))


def digest(folder: Path) -> str:
    """SHA-256, as 64 hexadecimal digits, over the sorted paths and SHA-256 of every file of a model, MLmodel and code included."""
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    kept = (path for path in paths if path != _WRITTEN_BY_MLFLOW)
    lines = (f"{_one_line(path)} {hashlib.sha256((folder / path).read_bytes()).hexdigest()}\n" for path in kept)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _one_line(path: Path) -> str:
    """A path as no other is written: a line break in the name of one file must not look like the line of another."""
    return path.as_posix().replace("\\", r"\\").replace("\n", r"\n")


@contextmanager
def fetch(version: Version, *, public_key: KeyPath | None = None) -> Iterator[Path]:
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
            f"model version {version} has no tag {DIGEST}, so its files cannot be checked; register it with mlflow_sb3.log_model."
        )
    if public_key is not None:
        _check_signature(version, version.digest, public_key)
    with _downloaded(version.uri) as folder:
        if not any(path.is_file() for path in folder.rglob("*")):
            raise MlflowException.invalid_parameter_value(
                f"model version {version} has no files any more: its artifacts were deleted; take another version, or register it again."
            )
        if (found := digest(folder)) != version.digest:
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
        with fetch(version, public_key=public_key) as folder:
            yield folder
    else:
        with _downloaded(model_uri) as folder:
            yield folder


def fixed(model_uri: str) -> str:
    """A URI that goes on naming the same version, when an alias or ``latest`` would not."""
    version = _registered(model_uri)
    return model_uri if version is None else version.uri


def _tags(digest: str, signing_key: KeyPath | None) -> dict[str, str]:
    if signing_key is None:
        return {DIGEST: digest}
    from mlflow_sb3 import signing

    return {DIGEST: digest, SIGNATURE: signing.sign(digest, signing_key)}


def _check_signature(version: Version, digest: str, public_key: KeyPath) -> None:
    from mlflow_sb3 import signing

    if version.signature is None:
        raise MlflowException.invalid_parameter_value(
            f"model version {version} has no tag {SIGNATURE}, so nobody vouches for it; "
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
    named = get_model_name_and_version(Client(), model_uri.rstrip("/"))  # type: ignore[no-untyped-call]
    return find(named[0], number=int(named[1])) if len(named) > 1 else None  # the id of a LoggedModel comes alone


@contextmanager
def _downloaded(uri: str) -> Iterator[Path]:
    """A private copy, without the caches that Python writes beside code that was imported in place."""
    with TemporaryDirectory() as folder:
        path = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder))
        for cache in list(path.rglob("__pycache__")):
            shutil.rmtree(cache)
        yield path


def _version(found: ModelVersion) -> Version:
    """MLflow's entity in our words: its ``version`` is text over REST and a number on SQLite, its ``model_id`` only in the source."""
    return Version(
        name=found.name,
        number=int(found.version),
        model_id=found.model_id or str(found.source).removeprefix("models:/"),
        run_id=found.run_id or None,
        digest=found.tags.get(DIGEST),
        signature=found.tags.get(SIGNATURE),
    )


def _missing(name: str, alias: str | None, number: int | None) -> str:
    wanted = f"alias {alias!r}" if number is None else f"version {number}"
    return f"registered model {name} has no {wanted}; its aliases are {_aliases(Client().get_registered_model(name).aliases)}."


def _aliases(aliases: dict[str, str]) -> str:
    return ", ".join(f"{alias} (version {number})" for alias, number in sorted(aliases.items())) or "none yet"
