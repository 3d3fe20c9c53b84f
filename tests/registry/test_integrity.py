"""What somebody may change behind a registered version, and that it is refused before anything of it is imported."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import mlflow
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from stable_baselines3 import PPO

import mlflow_sb3
from mlflow_sb3.flavor import registered_agent
from mlflow_sb3.registry import integrity, model_version, registration, signing, versions
from mlflow_sb3.registry.digest import hash_model
from mlflow_sb3.registry.model_version import Version
from steps.evaluate import evaluate
from steps.promote import promote
from tests.conftest import Keys
from tests.registry.test_versions import flip, stored

Load = Callable[[Version, Path | None], object]


def fetch(version: Version, key: Path | None) -> None:
    with integrity.fetch_version(version, public_key=key):
        pass


def stepped(command: click.Command, *options: str) -> Load:
    """A step, whose failure is one line."""

    def load(version: Version, key: Path | None) -> None:
        given = [] if key is None else ["--public-key", str(key)]
        result = CliRunner().invoke(
            command,
            ["--model-name", version.name, "--version", str(version.number), *options, *given],
        )
        if result.exit_code:
            raise MlflowException(result.stderr)

    return load


LOADS: dict[str, Load] = {
    "fetch": fetch,
    "load_policy": lambda version, key: mlflow_sb3.load_policy(version.uri, public_key=key),
    "load_model": lambda version, key: mlflow_sb3.load_model(version.uri, public_key=key),
    "contender": lambda version, key: registered_agent.load_agent(version, public_key=key),
    "evaluate": stepped(evaluate, "--episodes", "1"),
}
PROMOTIONS: dict[str, Load] = {
    "promote": stepped(promote, "--alias", "other", "--episodes", "2"),
    "promote by force": stepped(
        promote, "--alias", "other", "--rule", "force", "--reason", "to try"
    ),
}
"""They import what the model names, but only when its files are checked."""


def refuse(version: Version, key: Path | None, says: str) -> None:
    """Every way to load a version refuses it."""
    for load in (LOADS | PROMOTIONS).values():
        with pytest.raises(MlflowException, match=says):
            load(version, key)


def accept(version: Version, key: Path | None) -> None:
    """Every way to load a version takes it."""
    for load in LOADS.values():
        load(version, key)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """Where the code of the version `trapped` writes the name of each of its modules that is imported."""
    return tmp_path / "canary"


@pytest.fixture
def trapped(store: str, ppo: PPO, canary: Path, keys: Keys) -> Version:  # noqa: ARG001 a store to register in
    """A signed version whose MLmodel names a loader of its own, and whose code tells when it is imported."""
    folder = Path(
        mlflow.get_logged_model(
            mlflow_sb3.log_model(ppo, name="agent").model_id
        ).artifact_location.removeprefix("file://")
    )
    told = f"\nwith open({str(canary)!r}, 'a') as canary:\n    print(__name__, file=canary)\n"
    (folder / "code" / "trap.py").write_text("from mlflow_sb3.flavor import _load_pyfunc\n")
    for module in (folder / "code").rglob("*.py"):
        module.write_text(module.read_text() + told)
    described = (folder / "MLmodel").read_text()
    assert "loader_module: mlflow_sb3.flavor" in described
    (folder / "MLmodel").write_text(
        described.replace("loader_module: mlflow_sb3.flavor", "loader_module: trap")
    )
    return registration.register_version(
        folder.parent.name, "agent", alias="champion", signing_key=keys.private
    )


@contextmanager
def changed(path: Path) -> Iterator[None]:
    """One byte of a file is another one; in an empty file, there is one."""
    before = path.read_bytes()
    if before:
        flip(path)
    else:
        path.write_bytes(b"\n")
    yield
    path.write_bytes(before)


@pytest.mark.process
def test_mlflow_itself_imports_what_a_model_names(
    trapped: Version, canary: Path, store: str, tmp_path: Path
) -> None:
    load = "import mlflow, sys; mlflow.set_tracking_uri(sys.argv[1]); mlflow.pyfunc.load_model(sys.argv[2])"

    flip(stored(trapped) / "agent" / "agent.zip")
    subprocess.run(
        [sys.executable, "-B", "-c", load, store, trapped.uri],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )

    assert {"trap", "mlflow_sb3.flavor", "mlflow_sb3.inference.onnx_policy"} <= set(
        canary.read_text().split()
    )


@pytest.mark.process
@pytest.mark.parametrize("with_key", [False, True], ids=["digest", "signature"])
def test_one_changed_byte_in_any_file_is_refused_and_nothing_is_imported(
    with_key: bool, trapped: Version, canary: Path, keys: Keys
) -> None:
    files = sorted(path for path in stored(trapped).rglob("*") if path.is_file())
    names = {path.relative_to(stored(trapped)).as_posix() for path in files}
    key = keys.public if with_key else None
    path, modules = list(sys.path), set(sys.modules)

    for file in files:
        with changed(file):
            for name in ("fetch", "load_policy", "evaluate", "promote by force"):
                with pytest.raises(MlflowException, match="changed after registration"):
                    (LOADS | PROMOTIONS)[name](trapped, key)
                assert not canary.exists(), (file, name)

    assert {
        "MLmodel",
        "requirements.txt",
        "agent/agent.json",
        "agent/agent.zip",
        "agent/policy.onnx",
        "code/trap.py",
    } <= names
    assert len([name for name in names if name.startswith("code/mlflow_sb3/")]) > 30
    assert sys.path == path
    assert "trap" not in set(sys.modules) - modules
    accept(trapped, key)
    assert not canary.exists()


def test_files_that_fit_their_signature_are_loaded(signed: Version, keys: Keys) -> None:
    accept(signed, keys.public)
    accept(signed, None)


def test_another_key_is_refused(signed: Version, other_keys: Keys) -> None:
    refuse(
        signed,
        other_keys.public,
        r"signature of model version agent/1 is not valid .* another key signed the version",
    )


def test_a_version_that_nobody_signed_is_refused_with_a_key_alone(
    registered: Version, keys: Keys
) -> None:
    accept(registered, None)
    refuse(
        registered,
        keys.public,
        r"agent/1 is not signed: it has no tag mlflow_sb3\.signature",
    )


def test_files_changed_together_with_the_digest_are_refused_with_a_key_alone(
    signed: Version, keys: Keys
) -> None:
    retagged = forged(signed, {model_version.DIGEST_TAG: reopened(signed)})

    accept(retagged, None)
    refuse(retagged, keys.public, r"signature of model version agent/1 is not valid for its digest")


def test_files_signed_again_by_somebody_else_are_refused(
    signed: Version, keys: Keys, other_keys: Keys
) -> None:
    digest = reopened(signed)
    retagged = forged(
        signed,
        {
            model_version.DIGEST_TAG: digest,
            model_version.SIGNATURE_TAG: signing.sign_digest(digest, other_keys.private),
        },
    )

    refuse(retagged, keys.public, r"signature of model version agent/1 is not valid for its digest")


def test_another_signature_is_refused(signed: Version, keys: Keys) -> None:
    for signature in (" ", "nonsense", "A" * 88):
        refuse(
            forged(signed, {model_version.SIGNATURE_TAG: signature}),
            keys.public,
            r"signature of model version agent/1 is not valid for its digest",
        )


@pytest.mark.parametrize("tag", [model_version.DIGEST_TAG, model_version.SIGNATURE_TAG])
def test_a_tag_that_was_taken_away_is_refused(tag: str, signed: Version, keys: Keys) -> None:
    MlflowClient().delete_model_version_tag(signed.name, "1", tag)

    refuse(versions.find_version("agent", number=1), keys.public, f"agent/1 has no tag {tag}")


def test_the_files_of_one_version_with_the_tags_of_another_are_refused(
    signed: Version, ppo: PPO, keys: Keys
) -> None:
    mlflow_sb3.log_model(ppo, name="agent", registered_model_name="agent", signing_key=keys.private)
    other = versions.find_version("agent", number=2)
    assert other.digest != signed.digest

    for tags in (
        {model_version.SIGNATURE_TAG: other.signature},
        {model_version.SIGNATURE_TAG: other.signature, model_version.DIGEST_TAG: other.digest},
    ):
        with pytest.raises(
            MlflowException, match=r"is not valid for its digest|changed after registration"
        ):
            mlflow_sb3.load_policy(forged(signed, tags).uri, public_key=keys.public)


def test_a_signature_is_of_files_and_not_of_names(signed: Version, keys: Keys) -> None:
    again = registration.register_version(signed.model_id, "another")
    assert signed.signature is not None

    accept(forged(again, {model_version.SIGNATURE_TAG: signed.signature}), keys.public)


def test_without_mlmodel_a_version_is_still_that_version(signed: Version) -> None:
    (stored(signed) / "MLmodel").unlink()
    (stored(signed) / "registered_model_meta").write_text("model_name: null\nmodel_version: null\n")

    for uri in (
        "models:/agent/1",
        "models:/agent/latest",
        "models:/agent@champion",
        "models:/agent/1/",
        "Models:/agent/1",
    ):
        with pytest.raises(MlflowException, match="changed after registration"):
            mlflow_sb3.load_policy(uri)


def test_a_file_cannot_pass_for_the_line_of_another(tmp_path: Path) -> None:
    honest, forger = tmp_path / "honest", tmp_path / "forger"
    for folder in (honest, forger):
        folder.mkdir()
    (honest / "a").write_text("1")
    (honest / "b").write_text("2")
    (forger / f"a {hashlib.sha256(b'1').hexdigest()}\nb").write_text("2")

    assert hash_model(honest) != hash_model(forger)


def test_a_public_key_takes_no_model_that_is_not_registered(
    signed: Version, keys: Keys, tmp_path: Path
) -> None:
    shutil.copytree(stored(signed), tmp_path / "copy")

    for uri in (
        f"models:/{signed.model_id}",
        f"runs:/{signed.run_id}/agent",
        str(tmp_path / "copy"),
        (tmp_path / "copy").as_uri(),
    ):
        for load in (mlflow_sb3.load_policy, mlflow_sb3.load_model):
            with pytest.raises(
                MlflowException,
                match=r"is not a registered model version, .*\. Use models:/name/3 or",
            ) as caught:
                load(uri, public_key=keys.public)
            assert "\n" not in str(caught.value)


def test_a_bad_public_key_is_refused_before_anything_is_downloaded(
    signed: Version, keys: Keys
) -> None:
    shutil.rmtree(stored(signed))

    with pytest.raises(MlflowException, match=r"Public key '.*private\.pem' is a private key"):
        mlflow_sb3.load_policy(signed.uri, public_key=keys.private)
    with pytest.raises(MlflowException, match=r"Public key '' cannot be read"):
        mlflow_sb3.load_policy(signed.uri, public_key="")


def reopened(version: Version) -> str:
    """Change a file that acts no part, and tell the digest of all of them."""
    with (stored(version) / "requirements.txt").open("a") as requirements:
        requirements.write("malware\n")
    return hash_model(stored(version))


def forged(version: Version, tags: dict[str, str | None]) -> Version:
    """The version with other tags, as who can write to the registry can set them."""
    for key, value in tags.items():
        MlflowClient().set_model_version_tag(version.name, str(version.number), key, str(value))
    return versions.find_version(version.name, number=version.number)
