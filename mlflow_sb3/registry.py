"""Versions of registered models: found by alias or number, their files checked by digest, their aliases moved."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import yaml
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

CHALLENGER = "challenger"
"""Alias of the version that was registered last."""
DIGEST = "mlflow_sb3.digest"
"""Tag of a model version: SHA-256 over a manifest of its files."""

_WRITTEN_BY_MLFLOW = Path("registered_model_meta")
"""MLflow writes this file into a model that it downloads; it is no part of the model."""


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    name: str
    number: int
    model_id: str
    run_id: str | None
    digest: str | None

    def __str__(self) -> str:
        return f"{self.name}/{self.number}"

    @property
    def uri(self) -> str:
        """The URI that MLflow loads the version by."""
        return f"models:/{self}"


def model_name(env_id: str, algo: str) -> str:
    """The name to register an agent under: ``cartpole-v1-dqn`` for DQN on CartPole-v1; the module in front of an id is left away."""
    return re.sub(r"[^a-z0-9_]+", "-", f"{env_id.rpartition(':')[2]}-{algo}".lower())


def check_name(name: str) -> None:
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


def find(name: str, *, alias: str | None = None, number: int | None = None) -> Version:
    """Find a version by its number, or else by its alias.

    Raises:
        MlflowException: There is no such model, alias or version; the message names those that there are.
    """
    client = MlflowClient()
    try:
        if number is not None:
            return _version(client.get_model_version(name, str(number)))
        return _version(client.get_model_version_by_alias(name, str(alias)))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise MlflowException.invalid_parameter_value(_missing(client, name, alias, number)) from error


def champion(name: str, alias: str) -> Version | None:
    """The version that bears an alias, or None when none does yet."""
    aliases = MlflowClient().get_registered_model(name).aliases
    return find(name, number=int(aliases[alias])) if alias in aliases else None


def register(
    model_id: str,
    name: str,
    *,
    alias: str | None = None,
    tags: dict[str, str] | None = None,
    await_registration_for: int | None = 300,
) -> Version:
    """Register a logged model, with the digest of its stored files as a tag from the beginning.

    Args:
        model_id: Of an MLflow LoggedModel, ``m-…``.
        name: Created if there is no such registered model.
        alias: To set on the new version; there is no version when it cannot be set.
        tags: Of the version, besides its digest.
        await_registration_for: Seconds to wait for the version to become ready.
    """
    uri = f"models:/{model_id}"
    with _downloaded(uri) as folder:
        all_tags = {DIGEST: digest(folder)} | (tags or {})
    registered = mlflow.register_model(uri, name, tags=all_tags, await_registration_for=await_registration_for)
    if alias is not None:
        try:
            set_alias(name, alias, int(registered.version))
        except MlflowException:
            MlflowClient().delete_model_version(name, str(registered.version))
            raise
    return find(name, number=int(registered.version))


def set_alias(name: str, alias: str, number: int) -> None:
    """Point an alias to a version; no other version bears it then."""
    MlflowClient().set_registered_model_alias(name, alias, str(number))


def digest(folder: Path) -> str:
    """SHA-256, as 64 hexadecimal digits, over the sorted paths and SHA-256 of every file of a model, MLmodel and code included."""
    paths = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    kept = (path for path in paths if path != _WRITTEN_BY_MLFLOW)
    lines = (f"{path.as_posix()} {hashlib.sha256((folder / path).read_bytes()).hexdigest()}\n" for path in kept)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@contextmanager
def fetch(version: Version) -> Iterator[Path]:
    """Download a version's files, and check them before anything that they name is imported.

    Raises:
        MlflowException: The files are not those that were registered, or no digest was registered with them.
    """
    if version.digest is None:
        raise MlflowException.invalid_parameter_value(
            f"model version {version} has no tag {DIGEST}, so its files cannot be checked; register it with mlflow_sb3.log_model."
        )
    with _downloaded(version.uri) as folder:
        _check(version, folder)
        yield folder


@contextmanager
def fetch_uri(model_uri: str) -> Iterator[Path]:
    """Download the files behind any model URI; those of a version with a digest are checked as ``fetch`` does."""
    with _downloaded(model_uri) as folder:
        version = _downloaded_version(folder) if model_uri.startswith("models:") else None
        if version is not None and version.digest is not None:
            _check(version, folder)
        yield folder


def _check(version: Version, folder: Path) -> None:
    if (found := digest(folder)) != version.digest:
        raise MlflowException.invalid_parameter_value(
            f"model version {version} has the digest {found}, but its tag says {version.digest}: "
            "its files changed after registration; train and register it again."
        )


def _downloaded_version(folder: Path) -> Version | None:
    """The version that MLflow downloaded for an alias, a number or ``latest``, as it writes beside the files."""
    path = folder / _WRITTEN_BY_MLFLOW
    if not path.exists():
        return None
    named = yaml.safe_load(path.read_text())
    return find(named["model_name"], number=int(named["model_version"])) if named["model_name"] else None


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
    )


def _missing(client: MlflowClient, name: str, alias: str | None, number: int | None) -> str:
    try:
        model = client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return f"registered model {name!r} does not exist on {mlflow.get_registry_uri()}; train and log an agent of that name first."
    if number is not None:
        return f"registered model {name} has no version {number}; its aliases are {_aliases(model.aliases)}."
    return f"registered model {name} has no alias {alias!r}; its aliases are {_aliases(model.aliases)}."


def _aliases(aliases: dict[str, str]) -> str:
    return ", ".join(f"{alias} (version {number})" for alias, number in sorted(aliases.items())) or "none yet"
