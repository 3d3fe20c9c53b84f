from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from stable_baselines3 import PPO

import mlflow_sb3
from deploy.server.trial import TrialServer
from mlflow_sb3.promotion import challengers
from mlflow_sb3.registry import digest, integrity, model_version, names, registration, signing, versions
from mlflow_sb3.registry.model_version import Version
from tests.conftest import Keys
from tests.project import people


def stored(version: Version) -> Path:
    """Where a version's files lie."""
    return Path(mlflow.get_logged_model(version.model_id).artifact_location.removeprefix("file://"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_version_bears_its_digest_and_knows_its_model_and_run(registered: Version) -> None:
    assert registered.digest == digest.hash_model(stored(registered))
    assert mlflow.get_logged_model(registered.model_id).source_run_id == registered.run_id
    assert str(registered) == "agent/1"


def test_a_version_is_found_by_alias_and_by_number(registered: Version) -> None:
    versions.set_alias("agent", "hero", 1)

    assert versions.find_version("agent", alias="hero") == registered
    assert versions.find_version("agent", alias="nobody", number=1) == registered


def test_there_is_no_champion_at_first(registered: Version) -> None:
    assert versions.find_champion(registered.name, "champion") is None


@pytest.mark.parametrize(
    ("name", "alias", "number", "says"),
    [
        ("nobody", "hero", None, "Registered model 'nobody' does not exist"),
        (
            "agent",
            "hero",
            None,
            r"Registered model agent has no alias 'hero'\. It has no aliases yet",
        ),
        ("agent", None, 2, "Registered model agent has no version 2"),
    ],
)
@pytest.mark.usefixtures("registered")
def test_what_does_not_exist_is_named(
    name: str, alias: str | None, number: int | None, says: str
) -> None:
    with pytest.raises(MlflowException, match=says):
        versions.find_version(name, alias=alias, number=number)


def test_every_byte_of_every_file_counts(registered: Version, tmp_path: Path) -> None:
    files = [
        path.relative_to(stored(registered))
        for path in stored(registered).rglob("*")
        if path.is_file() and path.stat().st_size
    ]

    for file in files:
        copy = tmp_path / "copy"
        shutil.copytree(stored(registered), copy)
        flip(copy / file)
        assert digest.hash_model(copy) != registered.digest, file
        shutil.rmtree(copy)
    assert {
        Path("MLmodel"),
        Path("agent/policy.onnx"),
        Path("code/mlflow_sb3/flavor/api.py"),
    } <= set(files)


def test_an_added_file_counts(registered: Version) -> None:
    (stored(registered) / "code" / "more.py").write_text("")

    assert digest.hash_model(stored(registered)) != registered.digest


@pytest.mark.parametrize("file", ["MLmodel", "agent/policy.onnx", "code/mlflow_sb3/flavor/api.py"])
def test_a_changed_file_is_refused_on_fetching(registered: Version, file: str) -> None:
    flip(stored(registered) / file)

    with (
        pytest.raises(MlflowException, match="changed after registration"),
        integrity.fetch_version(registered),
    ):
        pass


@pytest.mark.parametrize("name", ["agent/1", "agent/latest", "agent@hero"])
def test_a_changed_file_is_refused_by_load_policy(registered: Version, name: str) -> None:
    versions.set_alias("agent", "hero", 1)
    flip(stored(registered) / "agent" / "policy.onnx")

    with pytest.raises(MlflowException, match="changed after registration"):
        mlflow_sb3.load_policy(f"models:/{name}")


def test_a_logged_model_that_is_not_registered_is_loaded(registered: Version) -> None:
    assert mlflow_sb3.load_policy(f"models:/{registered.model_id}").observation_space.shape == (4,)


def test_code_planted_in_a_cache_is_not_fetched(registered: Version) -> None:
    cache = stored(registered) / "code" / "mlflow_sb3" / "__pycache__"
    cache.mkdir()
    (cache / "flavor.cpython-311.pyc").write_bytes(b"")
    registered = model_version.Version(
        registered.name,
        1,
        registered.model_id,
        None,
        digest.hash_model(_without(cache, stored(registered))),
    )

    with integrity.fetch_version(registered) as folder:
        assert list(folder.rglob("__pycache__")) == []


def _without(cache: Path, folder: Path) -> Path:
    copy = cache.parents[3].with_name("copy")
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.mark.process
def test_loading_with_mlflow_does_not_spoil_the_digest(registered: Version, store: str) -> None:
    variables = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    load = "import mlflow, sys; mlflow.set_tracking_uri(sys.argv[1]); mlflow.pyfunc.load_model('models:/agent/1')"
    folder = stored(registered).parent
    subprocess.run([sys.executable, "-c", load, store], env=variables, cwd=folder, check=True)
    assert (stored(registered) / "registered_model_meta").exists()
    assert list(stored(registered).rglob("__pycache__"))

    mlflow_sb3.load_policy("models:/agent/1")


def test_a_version_without_a_digest_is_refused_by_fetch_and_loaded_by_load_policy(
    store: str, ppo: PPO
) -> None:  # noqa: ARG001
    info = mlflow_sb3.log_model(ppo, name="agent")
    mlflow.register_model(info.model_uri, "unsigned")

    assert mlflow_sb3.load_policy("models:/unsigned/1").action_space.dtype == "int64"
    with (
        pytest.raises(MlflowException, match=r"unsigned/1 has no tag mlflow_sb3\.digest"),
        integrity.fetch_version(versions.find_version("unsigned", number=1)),
    ):
        pass


def test_a_version_that_is_registered_with_a_key_bears_a_signature_of_its_digest(
    registered: Version, keys: Keys
) -> None:
    signed = registration.register_version(registered.model_id, "agent", signing_key=keys.private)

    assert registered.signature is None
    assert signed.signature == signing.sign_digest(str(registered.digest), keys.private)
    assert versions.find_version("agent", number=2) == signed


def test_a_key_that_cannot_sign_registers_nothing(registered: Version, keys: Keys) -> None:
    with pytest.raises(MlflowException, match=r"Private key '.*public\.pem' is a public key"):
        registration.register_version(registered.model_id, "another", signing_key=keys.public)

    assert [model.name for model in MlflowClient().search_registered_models()] == ["agent"]


def test_a_tag_of_the_caller_does_not_replace_the_digest(registered: Version) -> None:
    tagged = registration.register_version(
        registered.model_id, "agent", tags={model_version.DIGEST_TAG: "mine", "colour": "blue"}
    )

    assert tagged.digest == registered.digest
    assert MlflowClient().get_model_version("agent", "2").tags["colour"] == "blue"


@pytest.mark.usefixtures("registered")
def test_a_uri_of_a_folder_in_a_version_is_refused() -> None:
    with pytest.raises(MlflowException, match="Not a proper models:/ URI: models:/agent/1/agent"):
        mlflow_sb3.load_policy("models:/agent/1/agent")


def test_registering_sets_the_alias(registered: Version) -> None:
    second = registration.register_version(registered.model_id, "agent", alias="challenger")

    assert second.number == 2
    assert MlflowClient().get_registered_model("agent").aliases == {"challenger": 2}


@pytest.mark.parametrize(
    ("env_id", "name"),
    [
        ("CartPole-v1", "cartpole-v1-dqn"),
        ("ALE/Pong-v5", "ale-pong-v5-dqn"),
        ("my.pkg:Env-v0", "env-v0-dqn"),
    ],
)
def test_models_are_named_by_environment_and_algorithm(env_id: str, name: str) -> None:
    assert names.get_default_model_name(env_id, "dqn") == name


def test_a_version_whose_alias_cannot_be_set_is_not_registered(registered: Version) -> None:
    with pytest.raises(MlflowException, match="reserved"):
        registration.register_version(registered.model_id, "agent", alias="latest")

    assert [
        int(version.version) for version in MlflowClient().search_model_versions("name='agent'")
    ] == [1]


@pytest.mark.process
@pytest.mark.usefixtures("store")
def test_who_may_not_delete_a_version_is_told_why_its_alias_cannot_be_set(
    trial: TrialServer, ppo: PPO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = people.join(trial, "edda", tmp_path).name
    name = f"agent-{uuid.uuid4().hex[:6]}"
    trial.post("2.0/mlflow/registered-models/create", {"name": name})
    trial.grant(user, "EDIT", model=name)
    people.log_in(trial, user, monkeypatch)
    mlflow.set_experiment(user)

    with pytest.raises(MlflowException, match="reserved"):
        registration.register_version(
            mlflow_sb3.log_model(ppo, name="agent").model_id, name, alias="latest"
        )

    assert [
        int(version.version) for version in MlflowClient().search_model_versions(f"name='{name}'")
    ] == [1]


@pytest.mark.parametrize("name", ["team/agent", "a:b", " ", "", ".", ".."])
def test_names_that_mlflow_would_refuse_are_refused(name: str) -> None:
    with pytest.raises(MlflowException, match="is not a valid name for a registered model"):
        names.check_model_name(name)


@pytest.mark.parametrize("alias", ["latest", "Latest", "v3", "V12", "", "a b", "a/b", "x" * 256])
def test_aliases_that_mlflow_would_refuse_are_refused(alias: str) -> None:
    with pytest.raises(MlflowException, match="is not a valid alias"):
        names.check_alias(alias)


@pytest.mark.usefixtures("store")
def test_names_and_aliases_that_pass_are_those_that_mlflow_takes() -> None:
    for name in ("my agent", "cartpole-v1-dqn", "my.pkg"):
        names.check_model_name(name)
        MlflowClient().create_registered_model(name)
        MlflowClient().create_model_version(name, "file:///nowhere")
        for alias in ("champion", "v", "version1", "x" * 255):
            names.check_alias(alias)
            versions.set_alias(name, alias, 1)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("page", [1, 2, 100])
def test_the_best_versions_are_found_however_many_trainings_one_call_is_about(
    page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "_PAGE", page)
    client = MlflowClient()
    client.create_registered_model("agent")
    experiment_id = client.create_experiment("trainings")
    for score in (1.0, 5.0, 3.0, 4.0, 2.0):
        run_id = client.create_run(experiment_id).info.run_id
        client.log_metric(run_id, challengers.SCORE_METRIC, score)
        if score != 4.0:  # an agent that was not registered
            client.create_model_version("agent", f"runs:/{run_id}/agent", run_id)
    client.set_model_version_tag("agent", "3", versions.ROLLED_BACK_TAG, "a run")
    versions.set_alias("agent", "champion", 2)

    found = challengers.find_best_challengers("agent", "champion", experiment_id, 3)

    assert [version.number for version in found] == [4, 1]
