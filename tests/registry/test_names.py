from __future__ import annotations

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_sb3.registry import names, versions


@pytest.mark.parametrize(
    ("env_id", "name"),
    [
        ("CartPole-v1", "cartpole-v1-dqn"),
        ("ALE/Pong-v5", "ale-pong-v5-dqn"),
        ("my.pkg:Env-v0", "env-v0-dqn"),
    ],
)
def test_the_default_name_has_the_environment_and_the_algorithm(env_id: str, name: str) -> None:
    assert names.get_default_model_name(env_id, "dqn") == name


@pytest.mark.parametrize("name", ["team/agent", "a:b", " ", "", ".", ".."])
def test_a_name_that_mlflow_does_not_accept_is_refused(name: str) -> None:
    with pytest.raises(MlflowException, match="is not a valid name for a registered model"):
        names.check_model_name(name)


@pytest.mark.parametrize("alias", ["latest", "Latest", "v3", "V12", "", "a b", "a/b", "x" * 256])
def test_an_alias_that_mlflow_does_not_accept_is_refused(alias: str) -> None:
    with pytest.raises(MlflowException, match="is not a valid alias"):
        names.check_alias(alias)


@pytest.mark.parametrize("alias", [names.CHALLENGER_ALIAS, "previous-champion"])
def test_an_alias_that_promotions_move_cannot_mark_a_champion(alias: str) -> None:
    with pytest.raises(MlflowException, match=f"Alias '{alias}' cannot mark a champion"):
        names.check_champion_alias(alias)


def test_other_aliases_can_mark_a_champion() -> None:
    names.check_champion_alias("champion")


@pytest.mark.usefixtures("store")
def test_mlflow_accepts_the_names_and_aliases_that_pass_the_checks() -> None:
    for name in ("my agent", "cartpole-v1-dqn", "my.pkg"):
        names.check_model_name(name)
        MlflowClient().create_registered_model(name)
        MlflowClient().create_model_version(name, "file:///nowhere")
        for alias in ("champion", "v", "version1", "x" * 255):
            names.check_alias(alias)
            versions.set_alias(name, alias, 1)
