from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from mlflow_sb3.client.registry_client import RegistryClient, build_name_filter


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("name", ["agent", "the agent's", 'an "agent"'])
def test_a_registered_model_is_read_with_its_tags_and_aliases(name: str, tmp_path: Path) -> None:
    client = RegistryClient()
    client.create_registered_model(name, tags={"team": "rl"})
    client.create_model_version(name, str(tmp_path))
    client.set_registered_model_alias(name, "champion", "1")

    model = client.get_registered_model(name)

    assert model.name == name
    assert model.tags == {"team": "rl"}
    assert set(model.aliases) == {"champion"}


@pytest.mark.usefixtures("store")
def test_a_missing_registered_model_raises_the_error_of_mlflow() -> None:
    with pytest.raises(MlflowException, match="Registered Model with name=nothing not found"):
        RegistryClient().get_registered_model("nothing")


@pytest.mark.usefixtures("store")
def test_the_case_of_a_name_matters() -> None:
    client = RegistryClient()
    client.create_registered_model("Agent")

    with pytest.raises(MlflowException, match="not found"):
        client.get_registered_model("agent")


def test_a_name_with_an_apostrophe_is_put_in_double_quotes() -> None:
    assert build_name_filter("agent") == "name='agent'"
    assert build_name_filter("the agent's") == 'name="the agent\'s"'
