from __future__ import annotations

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_sb3.registry import versions
from mlflow_sb3.registry.model_version import Version


def test_a_version_is_found_by_alias_and_by_number(registered: Version) -> None:
    versions.set_alias("agent", "hero", 1)

    assert versions.find_version("agent", alias="hero") == registered
    assert versions.find_version("agent", alias="nobody", number=1) == registered


@pytest.mark.parametrize(
    ("name", "alias", "number", "message"),
    [
        ("nobody", "hero", None, "Registered model 'nobody' does not exist"),
        ("agent", "hero", None, r"agent has no alias 'hero'\. It has no aliases yet"),
        ("agent", None, 2, "Registered model agent has no version 2"),
    ],
)
@pytest.mark.usefixtures("registered")
def test_the_error_names_the_missing_model_alias_or_version(
    name: str, alias: str | None, number: int | None, message: str
) -> None:
    with pytest.raises(MlflowException, match=message):
        versions.find_version(name, alias=alias, number=number)


@pytest.mark.usefixtures("registered")
def test_the_error_lists_the_aliases() -> None:
    versions.set_alias("agent", "hero", 1)

    with pytest.raises(MlflowException, match=r"Its aliases are hero \(version 1\)\."):
        versions.find_version("agent", number=2)


def test_a_new_model_has_no_champion(registered: Version) -> None:
    assert versions.find_champion(registered.name, "champion") is None


@pytest.mark.usefixtures("store")
def test_a_missing_model_has_no_champion_but_an_error() -> None:
    with pytest.raises(MlflowException, match="Registered model 'nobody' does not exist"):
        versions.find_champion("nobody", "champion")


def test_a_deleted_version_does_not_exist(registered: Version) -> None:
    assert versions.has_version(registered.name, 1)

    MlflowClient().delete_model_version(registered.name, "1")

    assert not versions.has_version(registered.name, 1)


@pytest.fixture
def run_id(store: str) -> str:
    """A run with two versions of the registered model ``agent``. Version 2 has a tag."""
    client = MlflowClient()
    run_id = str(client.create_run(client.create_experiment("trainings")).info.run_id)
    client.create_registered_model("agent")
    client.create_model_version("agent", f"runs:/{run_id}/agent", run_id)
    client.create_model_version("agent", f"runs:/{run_id}/agent", run_id, tags={"colour": "blue"})
    client.create_model_version("agent", "file:///nowhere")
    return run_id


def test_the_versions_of_a_run_are_found(run_id: str) -> None:
    entities = versions.find_versions_of_runs("agent", [run_id, "another"])

    assert {int(entity.version) for entity in entities} == {1, 2}
    assert versions.find_versions_of_runs("agent", []) == []


def test_the_latest_version_of_a_run_with_the_tags_is_found(run_id: str) -> None:
    MlflowClient().set_model_version_tag("agent", "1", "colour", "red")

    blue = versions.find_version_of_run("agent", run_id, {"colour": "blue"})
    latest = versions.find_version_of_run("agent", run_id, {})

    assert blue is not None
    assert latest is not None
    assert (blue.number, latest.number) == (2, 2)
    assert versions.find_version_of_run("agent", run_id, {"colour": "green"}) is None


@pytest.mark.usefixtures("run_id")
def test_a_tag_is_removed_if_there_is_one() -> None:
    version = versions.find_version("agent", number=2)

    for _ in range(2):
        versions.remove_tag(version, "colour")

    assert "colour" not in MlflowClient().get_model_version("agent", "2").tags


@pytest.mark.usefixtures("run_id")
def test_an_alias_is_removed_from_this_version_only() -> None:
    versions.set_alias("agent", "challenger", 2)

    versions.remove_alias(versions.find_version("agent", number=1), "challenger")
    assert MlflowClient().get_registered_model("agent").aliases == {"challenger": 2}

    versions.remove_alias(versions.find_version("agent", number=2), "challenger")
    assert MlflowClient().get_registered_model("agent").aliases == {}
