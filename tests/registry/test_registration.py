from __future__ import annotations

import uuid
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils import model_utils
from stable_baselines3 import PPO

import mlflow_sb3
from deploy.server.trial import TrialServer
from mlflow_sb3.registry import registration, signing, versions
from mlflow_sb3.registry.model_version import DIGEST_TAG, Version
from tests.conftest import Keys
from tests.project import people


def list_numbers(name: str) -> list[int]:
    """Return the version numbers of a registered model."""
    entities = MlflowClient().search_model_versions(f"name='{name}'")
    return [int(entity.version) for entity in entities]


def test_a_version_that_is_registered_with_a_key_is_signed(registered: Version, keys: Keys) -> None:
    signed = registration.register_version(registered.model_id, "agent", signing_key=keys.private)

    assert registered.signature is None
    assert signed.signature == signing.sign_digest(str(registered.digest), keys.private)
    assert versions.find_version("agent", number=2) == signed


def test_the_digest_covers_a_file_that_mlflow_adds(
    store: str, ppo: PPO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow lists the environment variables that a model reads, if their names look secret."""
    assert store
    monkeypatch.setenv("MLFLOW_SB3_MAX_ROWS", "1000")
    monkeypatch.setattr(model_utils, "RECORD_ENV_VAR_ALLOWLIST", {"MAX_ROWS"})

    info = mlflow_sb3.log_model(ppo, name="agent", registered_model_name="agent")

    location = Path(mlflow.get_logged_model(info.model_id).artifact_location[len("file://") :])
    assert (location / "environment_variables.txt").exists()
    mlflow_sb3.load_policy("models:/agent/1")


def test_nothing_is_registered_if_the_key_cannot_sign(registered: Version, keys: Keys) -> None:
    with pytest.raises(MlflowException, match=r"Private key '.*public\.pem' is a public key"):
        registration.register_version(registered.model_id, "another", signing_key=keys.public)

    assert [model.name for model in MlflowClient().search_registered_models()] == ["agent"]


def test_a_tag_of_the_caller_does_not_replace_the_digest(registered: Version) -> None:
    tagged = registration.register_version(
        registered.model_id, "agent", tags={DIGEST_TAG: "mine", "colour": "blue"}
    )

    assert tagged.digest == registered.digest
    assert MlflowClient().get_model_version("agent", "2").tags["colour"] == "blue"


def test_the_new_version_gets_the_alias(registered: Version) -> None:
    second = registration.register_version(registered.model_id, "agent", alias="challenger")

    assert second.number == 2
    assert MlflowClient().get_registered_model("agent").aliases == {"challenger": 2}


def test_a_version_is_deleted_again_if_its_alias_cannot_be_set(registered: Version) -> None:
    with pytest.raises(MlflowException, match="reserved"):
        registration.register_version(registered.model_id, "agent", alias="latest")

    assert list_numbers("agent") == [1]


@pytest.mark.postgres
@pytest.mark.usefixtures("store")
def test_a_user_who_may_not_delete_versions_sees_why_the_alias_cannot_be_set(
    trial: TrialServer, ppo: PPO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = people.join(trial, "edda", tmp_path).name
    name = f"agent-{uuid.uuid4().hex[:6]}"
    trial.post("2.0/mlflow/registered-models/create", {"name": name})
    trial.grant(user, "EDIT", model=name)
    people.log_in(trial, user, monkeypatch)
    mlflow.set_experiment(user)
    model_id = mlflow_sb3.log_model(ppo, name="agent").model_id

    with pytest.raises(MlflowException, match="reserved"):
        registration.register_version(model_id, name, alias="latest")

    assert list_numbers(name) == [1]
