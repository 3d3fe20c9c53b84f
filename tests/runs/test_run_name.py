from __future__ import annotations

import mlflow
import pytest
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE

from mlflow_sb3.runs import run_name


@pytest.mark.usefixtures("store")
def test_a_run_without_a_name_of_the_user_gets_one() -> None:
    with mlflow.start_run() as run:
        mlflow.set_tags(run_name.build_tags("evaluate agent/2", "Mean return 3"))

    changed = mlflow.get_run(run.info.run_id)
    assert changed.info.run_name == "evaluate agent/2"
    assert changed.data.tags[MLFLOW_RUN_NOTE] == "Mean return 3"


@pytest.mark.usefixtures("store")
def test_a_name_of_the_user_is_kept() -> None:
    with mlflow.start_run(run_name="my run"):
        assert run_name.build_tags("evaluate agent/2") == {}


@pytest.mark.usefixtures("store")
def test_a_description_of_the_user_is_kept() -> None:
    with mlflow.start_run(run_name="my run", description="mine"):
        assert run_name.build_tags("evaluate agent/2", "Mean return 3") == {}


@pytest.mark.usefixtures("store")
def test_the_outcome_is_added_to_the_name() -> None:
    with mlflow.start_run() as run:
        mlflow.set_tags(run_name.build_tags("main CartPole-v1"))
        mlflow.set_tags(run_name.build_tags("main CartPole-v1 -> v2 rejected"))

    assert mlflow.get_run(run.info.run_id).info.run_name == "main CartPole-v1 -> v2 rejected"


@pytest.mark.usefixtures("store")
def test_a_long_name_is_cut() -> None:
    with mlflow.start_run():
        assert run_name.build_tags("x" * 300) == {MLFLOW_RUN_NAME: "x" * 250}


@pytest.mark.usefixtures("store")
def test_names_that_mlflow_invents_are_recognized() -> None:
    names = [mlflow.MlflowClient().create_run("0").info.run_name for _ in range(50)]

    assert [name for name in names if not run_name.is_generated(name)] == []


@pytest.mark.parametrize("name", ["cartpole-dqn-1", "grandiose-sheep", "train", "sheep-123"])
def test_other_names_are_not(name: str) -> None:
    assert not run_name.is_generated(name)
