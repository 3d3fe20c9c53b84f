"""Changes behind a registered version are refused before any code of it is imported."""

from __future__ import annotations

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
from mlflow_sb3.cli.evaluate import evaluate
from mlflow_sb3.cli.promote import promote
from mlflow_sb3.flavor import registered_agent
from mlflow_sb3.registry import integrity, registration, signing, versions
from mlflow_sb3.registry.digest import hash_folder
from mlflow_sb3.registry.model_version import DIGEST_TAG, SIGNATURE_TAG, Version
from tests.conftest import Keys
from tests.registry.model_files import flip_bit, get_folder, list_files

Load = Callable[[Version, Path | None], object]
"""A way to load a version, maybe with a public key."""

CHANGED = "changed after registration"
NOT_VALID = r"signature of model version agent/1 is not valid for its digest"


def fetch(version: Version, public_key: Path | None) -> None:
    with integrity.fetch_version(version, public_key=public_key):
        pass


def load_with_step(command: click.Command, *options: str) -> Load:
    """Return a function that runs a step and raises its error."""

    def load(version: Version, public_key: Path | None) -> None:
        arguments = ["--model-name", version.name, "--version", str(version.number), *options]
        if public_key is not None:
            arguments += ["--public-key", str(public_key)]
        result = CliRunner().invoke(command, arguments)
        if result.exit_code:
            raise MlflowException(result.stderr)

    return load


LOADS: dict[str, Load] = {
    "fetch": fetch,
    "load_policy": lambda version, key: mlflow_sb3.load_policy(version.uri, public_key=key),
    "load_model": lambda version, key: mlflow_sb3.load_model(
        version.uri, public_key=key, allow_pickle=True
    ),
    "load_agent": lambda version, key: registered_agent.load_agent(version, public_key=key),
    "evaluate": load_with_step(evaluate, "--episodes", "1"),
}
PROMOTIONS: dict[str, Load] = {
    "promote": load_with_step(promote, "--alias", "other", "--episodes", "2"),
    "force": load_with_step(promote, "--alias", "other", "--rule", "force", "--reason", "a test"),
}
"""They import the code of a version, but only after its files have been checked."""


def assert_all_refuse(version: Version, public_key: Path | None, message: str) -> None:
    for load in (LOADS | PROMOTIONS).values():
        with pytest.raises(MlflowException, match=message):
            load(version, public_key)


def assert_all_accept(version: Version, public_key: Path | None) -> None:
    for load in LOADS.values():
        load(version, public_key)


@pytest.fixture
def import_log(tmp_path: Path) -> Path:
    """The file to which each module of ``logging_version`` writes its name on import."""
    return tmp_path / "imports"


@pytest.fixture
def logging_version(store: str, ppo: PPO, import_log: Path, keys: Keys) -> Version:
    """A signed version with a loader module of its own. Its code logs every import."""
    model_id = mlflow_sb3.log_model(ppo, name="agent").model_id
    location = mlflow.get_logged_model(model_id).artifact_location
    folder = Path(location.removeprefix("file://"))
    (folder / "code" / "loader.py").write_text("from mlflow_sb3.flavor import _load_pyfunc\n")
    statement = f"\nwith open({str(import_log)!r}, 'a') as log:\n    print(__name__, file=log)\n"
    for module in (folder / "code").rglob("*.py"):
        module.write_text(module.read_text() + statement)
    mlmodel = (folder / "MLmodel").read_text()
    assert "loader_module: mlflow_sb3.flavor" in mlmodel
    (folder / "MLmodel").write_text(
        mlmodel.replace("loader_module: mlflow_sb3.flavor", "loader_module: loader")
    )
    return registration.register_version(
        model_id, "agent", alias="champion", signing_key=keys.private
    )


@contextmanager
def change_file(path: Path) -> Iterator[None]:
    """Change one bit of a file, or fill an empty file, and restore it afterwards."""
    content = path.read_bytes()
    if content:
        flip_bit(path)
    else:
        path.write_bytes(b"\n")
    yield
    path.write_bytes(content)


@pytest.mark.process
def test_mlflow_imports_the_code_of_a_changed_version(
    logging_version: Version, import_log: Path, store: str, tmp_path: Path
) -> None:
    flip_bit(get_folder(logging_version) / "agent" / "agent.zip")
    program = (
        "import mlflow, sys; mlflow.set_tracking_uri(sys.argv[1]); "
        "mlflow.pyfunc.load_model(sys.argv[2])"
    )

    subprocess.run(
        [sys.executable, "-B", "-c", program, store, logging_version.uri],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )

    imported = set(import_log.read_text().split())
    assert {"loader", "mlflow_sb3.flavor", "mlflow_sb3.inference.onnx_policy"} <= imported


@pytest.mark.process
@pytest.mark.parametrize("with_key", [False, True], ids=["digest", "signature"])
def test_a_changed_bit_in_any_file_is_refused_and_no_code_is_imported(
    with_key: bool, logging_version: Version, import_log: Path, keys: Keys
) -> None:
    files = list_files(logging_version)
    public_key = keys.public if with_key else None
    path, modules = list(sys.path), set(sys.modules)

    for file in files:
        with change_file(get_folder(logging_version) / file):
            for name in ("fetch", "load_policy", "evaluate", "force"):
                with pytest.raises(MlflowException, match=CHANGED):
                    (LOADS | PROMOTIONS)[name](logging_version, public_key)
                assert not import_log.exists(), (file, name)

    names = {file.as_posix() for file in files}
    assert {"MLmodel", "requirements.txt", "code/loader.py"} <= names
    assert {"agent/agent.json", "agent/agent.zip", "agent/policy.onnx"} <= names
    assert len([name for name in names if name.startswith("code/mlflow_sb3/")]) > 5
    assert sys.path == path
    assert "loader" not in set(sys.modules) - modules
    assert_all_accept(logging_version, public_key)
    assert not import_log.exists()


@pytest.mark.parametrize("folder", ["MLmodel", "agent/policy.onnx", "code/mlflow_sb3"])
def test_a_changed_file_is_refused_by_fetch_version(registered: Version, folder: str) -> None:
    path = get_folder(registered) / folder
    flip_bit(
        path if path.is_file() else max(path.rglob("*.py"), key=lambda file: file.stat().st_size)
    )

    with pytest.raises(MlflowException, match=CHANGED):
        fetch(registered, None)


@pytest.mark.parametrize("name", ["agent/1", "agent/latest", "agent@hero"])
def test_a_changed_file_is_refused_by_load_policy(registered: Version, name: str) -> None:
    versions.set_alias("agent", "hero", 1)
    flip_bit(get_folder(registered) / "agent" / "policy.onnx")

    with pytest.raises(MlflowException, match=CHANGED):
        mlflow_sb3.load_policy(f"models:/{name}")


def test_a_version_without_files_is_refused(registered: Version) -> None:
    folder = get_folder(registered)
    shutil.rmtree(folder)
    folder.mkdir()

    with pytest.raises(MlflowException, match="agent/1 has no files, because"):
        fetch(registered, None)


def test_a_logged_model_that_is_not_registered_loads(registered: Version) -> None:
    policy = mlflow_sb3.load_policy(f"models:/{registered.model_id}")

    assert policy.observation_space.shape == (4,)


@pytest.mark.train
def test_a_uri_of_a_folder_in_a_version_is_refused(registered: Version) -> None:
    with pytest.raises(MlflowException, match="Not a proper models:/ URI: models:/agent/1/agent"):
        mlflow_sb3.load_policy(f"{registered.uri}/agent")


def test_a_uri_is_pinned_to_the_version_number(registered: Version) -> None:
    versions.set_alias("agent", "hero", 1)

    assert integrity.pin_version_uri("models:/agent@hero") == "models:/agent/1"
    assert integrity.pin_version_uri("models:/agent/latest") == "models:/agent/1"
    run_uri = f"runs:/{registered.run_id}/agent"
    assert integrity.pin_version_uri(run_uri) == run_uri


def test_bytecode_next_to_the_code_is_not_downloaded(registered: Version) -> None:
    cache = get_folder(registered) / "code" / "mlflow_sb3" / "__pycache__"
    cache.mkdir()
    (cache / "flavor.cpython-311.pyc").write_bytes(b"")

    with integrity.fetch_version(registered) as folder:
        assert list(folder.rglob("__pycache__")) == []


@pytest.mark.process
def test_loading_with_mlflow_does_not_change_the_digest(
    registered: Version, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    folder = get_folder(registered)
    program = (
        "import mlflow, sys; mlflow.set_tracking_uri(sys.argv[1]); "
        "mlflow.pyfunc.load_model('models:/agent/1')"
    )

    subprocess.run([sys.executable, "-c", program, store], cwd=folder.parent, check=True)

    assert (folder / "registered_model_meta").exists()
    assert list(folder.rglob("__pycache__"))
    mlflow_sb3.load_policy("models:/agent/1")


@pytest.mark.usefixtures("store")
def test_a_version_without_a_digest_is_refused_by_fetch_version_and_loaded_by_load_policy(
    ppo: PPO,
) -> None:
    info = mlflow_sb3.log_model(ppo, name="agent")
    mlflow.register_model(info.model_uri, "unsigned")

    assert mlflow_sb3.load_policy("models:/unsigned/1").action_space.dtype == "int64"
    with pytest.raises(MlflowException, match=r"unsigned/1 has no tag mlflow_sb3\.digest"):
        fetch(versions.find_version("unsigned", number=1), None)


def test_files_with_a_valid_signature_are_accepted(signed: Version, keys: Keys) -> None:
    assert_all_accept(signed, keys.public)
    assert_all_accept(signed, None)


def test_the_signature_of_another_key_is_refused(signed: Version, other_keys: Keys) -> None:
    message = r"signature of model version agent/1 is not valid .* another key signed the version"
    assert_all_refuse(signed, other_keys.public, message)


def test_a_version_without_a_signature_is_refused_only_with_a_key(
    registered: Version, keys: Keys
) -> None:
    assert_all_accept(registered, None)
    message = r"agent/1 is not signed: it has no tag mlflow_sb3\.signature"
    assert_all_refuse(registered, keys.public, message)


@pytest.mark.train
def test_files_that_changed_with_the_digest_are_refused_only_with_a_key(
    signed: Version, keys: Keys
) -> None:
    changed = set_tags(signed, {DIGEST_TAG: change_requirements(signed)})

    assert_all_accept(changed, None)
    assert_all_refuse(changed, keys.public, NOT_VALID)


@pytest.mark.train
def test_files_that_another_key_signed_again_are_refused(
    signed: Version, keys: Keys, other_keys: Keys
) -> None:
    digest = change_requirements(signed)
    signature = signing.sign_digest(digest, other_keys.private)

    changed = set_tags(signed, {DIGEST_TAG: digest, SIGNATURE_TAG: signature})

    assert_all_refuse(changed, keys.public, NOT_VALID)


@pytest.mark.train
@pytest.mark.parametrize("signature", [" ", "nonsense", "A" * 88])
def test_an_invalid_signature_is_refused(signature: str, signed: Version, keys: Keys) -> None:
    assert_all_refuse(set_tags(signed, {SIGNATURE_TAG: signature}), keys.public, NOT_VALID)


@pytest.mark.train
@pytest.mark.parametrize("tag", [DIGEST_TAG, SIGNATURE_TAG])
def test_a_version_with_a_deleted_tag_is_refused(tag: str, signed: Version, keys: Keys) -> None:
    MlflowClient().delete_model_version_tag(signed.name, "1", tag)

    version = versions.find_version("agent", number=1)
    assert_all_refuse(version, keys.public, f"agent/1 .*has no tag {tag}")


@pytest.mark.train
def test_the_tags_of_another_version_are_refused(signed: Version, ppo: PPO, keys: Keys) -> None:
    mlflow_sb3.log_model(ppo, name="agent", registered_model_name="agent", signing_key=keys.private)
    other = versions.find_version("agent", number=2)
    assert other.digest != signed.digest

    for tags in (
        {SIGNATURE_TAG: other.signature},
        {SIGNATURE_TAG: other.signature, DIGEST_TAG: other.digest},
    ):
        with pytest.raises(MlflowException, match=f"is not valid for its digest|{CHANGED}"):
            mlflow_sb3.load_policy(set_tags(signed, tags).uri, public_key=keys.public)


def test_a_signature_is_valid_under_another_model_name(signed: Version, keys: Keys) -> None:
    again = registration.register_version(signed.model_id, "another")

    assert_all_accept(set_tags(again, {SIGNATURE_TAG: signed.signature}), keys.public)


def test_a_version_without_mlmodel_is_refused_under_every_uri(signed: Version) -> None:
    (get_folder(signed) / "MLmodel").unlink()
    (get_folder(signed) / "registered_model_meta").write_text(
        "model_name: null\nmodel_version: null\n"
    )

    for uri in (
        "models:/agent/1",
        "models:/agent/latest",
        "models:/agent@champion",
        "models:/agent/1/",
        "Models:/agent/1",
    ):
        with pytest.raises(MlflowException, match=CHANGED):
            mlflow_sb3.load_policy(uri)


def test_a_public_key_refuses_models_that_are_not_registered(
    signed: Version, keys: Keys, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(get_folder(signed), copy)
    message = r"is not a registered model version, .*\. Use models:/name/3 or"

    for uri in (
        f"models:/{signed.model_id}",
        f"runs:/{signed.run_id}/agent",
        str(copy),
        copy.as_uri(),
    ):
        for load in (mlflow_sb3.load_policy, mlflow_sb3.load_model):
            with pytest.raises(MlflowException, match=message) as raised:
                load(uri, public_key=keys.public)
            assert "\n" not in str(raised.value)


def test_a_bad_public_key_is_refused_before_the_download(signed: Version, keys: Keys) -> None:
    shutil.rmtree(get_folder(signed))

    with pytest.raises(MlflowException, match=r"Public key '.*private\.pem' is a private key"):
        mlflow_sb3.load_policy(signed.uri, public_key=keys.private)
    with pytest.raises(MlflowException, match=r"Public key '' cannot be read"):
        mlflow_sb3.load_policy(signed.uri, public_key="")


def change_requirements(version: Version) -> str:
    """Change a file that does not affect the policy, and return the new digest."""
    with (get_folder(version) / "requirements.txt").open("a") as requirements:
        requirements.write("malware\n")
    return hash_folder(get_folder(version))


def set_tags(version: Version, tags: dict[str, str | None]) -> Version:
    """Set tags as anyone can who may write to the registry, and return the new version."""
    for key, value in tags.items():
        MlflowClient().set_model_version_tag(version.name, str(version.number), key, str(value))
    return versions.find_version(version.name, number=version.number)
