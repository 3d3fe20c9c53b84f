"""A registered model with a champion, made by the steps themselves."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import pytest

from mlflow_sb3.cli.log_model import log_model
from mlflow_sb3.cli.promote import promote
from mlflow_sb3.cli.train import train
from mlflow_sb3.registry import versions
from mlflow_sb3.registry.model_version import Version
from tests.cli.commands import TINY_TRAINING, succeed
from tests.conftest import MakeOnce

NAME = "cartpole-v1-ppo"


@pytest.fixture(scope="session")
def champion_store(empty_store: Path, make_once: MakeOnce) -> Path:
    """A store with version 1 of `cartpole-v1-ppo`, which has the alias champion.

    The tiny agent would not pass the gate, so it is promoted with --rule force.
    """

    def build(folder: Path) -> None:
        shutil.copy(empty_store, folder / "mlflow.db")
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        location = (folder / "artifacts").as_uri()
        mlflow.set_experiment(
            experiment_id=mlflow.create_experiment("champion", artifact_location=location)
        )
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
            trained = succeed(train, *TINY_TRAINING)
            succeed(log_model, "--run-id", trained.info.run_id)
            force = ["--rule", "force", "--reason", "the first version"]
            succeed(promote, "--model-name", NAME, *force)
        mlflow.set_tracking_uri(before)

    return make_once("champion", build) / "mlflow.db"


@pytest.fixture
def champion(store: str, champion_store: Path, tmp_path: Path) -> Version:
    """The champion in a store of this test.

    All tests share the files of the version, so a test must not change them.
    """
    shutil.copy(champion_store, tmp_path / "champion.db")
    # The key that signed the agent.
    shutil.copytree(champion_store.parent / "state", tmp_path / "state", dirs_exist_ok=True)
    mlflow.set_tracking_uri(store.replace("mlflow.db", "champion.db"))
    mlflow.set_experiment("champion")
    return versions.find_version(NAME, alias="champion")
