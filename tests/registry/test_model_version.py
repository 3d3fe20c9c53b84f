from __future__ import annotations

import mlflow
from mlflow.entities.model_registry import ModelVersion

from mlflow_sb3.registry.digest import hash_folder
from mlflow_sb3.registry.model_version import DIGEST_TAG, SIGNATURE_TAG, Version
from tests.registry.model_files import get_folder


def test_a_registered_version_has_its_digest_its_model_and_its_run(registered: Version) -> None:
    assert registered.digest == hash_folder(get_folder(registered))
    assert mlflow.get_logged_model(registered.model_id).source_run_id == registered.run_id
    assert str(registered) == "agent/1"
    assert registered.uri == "models:/agent/1"


def test_the_version_number_may_be_text_and_the_model_id_may_be_in_the_source() -> None:
    entity = ModelVersion("agent", "3", 0, source="models:/m-1", run_id="")

    assert Version.from_mlflow(entity) == Version("agent", 3, "m-1", None, None)


def test_the_digest_and_the_signature_are_tags() -> None:
    version = Version("agent", 1, "m-1", None, "digest", "signature")

    assert (DIGEST_TAG, SIGNATURE_TAG) == ("mlflow_sb3.digest", "mlflow_sb3.signature")
    assert (version.digest, version.signature) == ("digest", "signature")
