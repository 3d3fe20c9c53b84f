"""A real SQLite store per test, and tiny agents that were really trained."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import mlflow
import pytest
import torch
from mlflow import MlflowClient
from mlflow.environment_variables import MLFLOW_EXPERIMENT_ID
from mlflow.tracking import fluent
from stable_baselines3 import PPO
from torch.onnx._internal.exporter._registration import ONNXRegistry

from deploy.server.trial import TrialServer
from mlflow_sb3.envs import env_spec
from mlflow_sb3.registry import model_version, versions
from tests import team

LEVELS = (0, 1, 5, 5, 7)
"""What the agents of `levels` do: versions 1 and 2 are hardly apart, 3 and 4 equal, and 5 is the best."""


@dataclass(frozen=True)
class Keys:
    """The two files of an Ed25519 key."""

    private: Path
    public: Path


def openssl(arguments: str) -> None:
    """Run openssl, as users do who make keys."""
    subprocess.run(["openssl", *arguments.split()], check=True, capture_output=True)


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    """As training has it: on networks this small, more threads only wait for each other, and for those of other workers."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _one_table_of_operators() -> None:
    """PyTorch 2.13 makes the table by which it exports anew for every graph, which is half of the time of an export."""
    ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs keep what outlives their processes in a folder of the test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(autouse=True)
def _own_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow keeps the experiment that a test has set for the whole process, and for those that it starts; another test has none."""
    monkeypatch.setattr(fluent, "_active_experiment_id", None)
    monkeypatch.setenv(MLFLOW_EXPERIMENT_ID.name, "")  # so that it is put back, whoever sets it
    monkeypatch.delenv(MLFLOW_EXPERIMENT_ID.name)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose tables are made: that takes seconds, copying the file does not."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A tracking store and an experiment of this test alone; returns its URI."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    before = mlflow.get_tracking_uri()
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(
        experiment_id=mlflow.create_experiment(
            "test", artifact_location=(tmp_path / "artifacts").as_uri()
        )
    )
    yield uri
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="session")
def levels_store(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with five versions of the registered model `levels`, whose agents always take the action of ``LEVELS``."""
    folder = tmp_path_factory.mktemp("levels")
    shutil.copy(empty_store, folder / "mlflow.db")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.set_experiment(
        experiment_id=mlflow.create_experiment(
            "levels", artifact_location=(folder / "artifacts").as_uri()
        )
    )
    with mlflow.start_run():
        for level in LEVELS:
            leveled(level)
    mlflow.set_tracking_uri(before)
    return folder / "mlflow.db"


@pytest.fixture
def levels(store: str, levels_store: Path, tmp_path: Path) -> Iterator[list[model_version.Version]]:
    """The versions of `levels` in a store of this test, inside a run; their files are shared by all tests and not to be changed."""
    shutil.copy(levels_store, tmp_path / "levels.db")
    mlflow.set_tracking_uri(store.replace("mlflow.db", "levels.db"))
    mlflow.set_experiment("levels")
    with mlflow.start_run():
        yield [versions.find_version("levels", number=1 + place) for place in range(len(LEVELS))]


def leveled(level: int, name: str = "levels", **kwargs: Any) -> model_version.Version:
    """Register an agent that always takes one action."""
    import mlflow_sb3

    env = gymnasium.make("tests.environments:Levels-v0", **kwargs)
    model = PPO("MlpPolicy", env, policy_kwargs={"net_arch": []}, device="cpu")
    weight, bias = model.policy.get_submodule("action_net").parameters()
    with torch.no_grad():
        weight[:] = bias[:] = 0.0
        bias[level] = 1.0
    info = mlflow_sb3.log_model(model, name=name, registered_model_name=name)
    return versions.find_version(name, number=int(str(info.registered_model_version)))


@pytest.fixture(scope="session")
def cartpole() -> str:
    """CartPole-v1 as EnvSpec JSON."""
    return env_spec.spec_to_json(gymnasium.spec("CartPole-v1"))


@pytest.fixture(scope="session")
def ppo() -> PPO:
    """PPO on CartPole-v1 after 64 steps."""
    return PPO("MlpPolicy", "CartPole-v1", n_steps=64, seed=0, device="cpu").learn(64)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def registered(store: str, ppo: PPO) -> model_version.Version:  # noqa: ARG001 a store to register in
    """Version 1 of the registered model `agent`."""
    import mlflow_sb3

    mlflow_sb3.log_model(ppo, name="agent", registered_model_name="agent")
    return versions.find_version("agent", number=1)


@pytest.fixture
def signed(store: str, ppo: PPO, keys: Keys) -> model_version.Version:  # noqa: ARG001 a store to register in
    """Version 1 of the registered model `agent`, the champion, signed with `keys`."""
    import mlflow_sb3

    mlflow_sb3.log_model(ppo, name="agent", registered_model_name="agent", signing_key=keys.private)
    versions.set_alias("agent", "champion", 1)
    return versions.find_version("agent", number=1)


@pytest.fixture(scope="session")
def saved(ppo: PPO, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a saved model."""
    import mlflow_sb3

    folder = tmp_path_factory.mktemp("saved") / "model"
    mlflow_sb3.save_model(ppo, folder)
    return folder


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The keys of whom we trust."""
    return made_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def other_keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The keys of somebody else."""
    return made_keys(tmp_path_factory.mktemp("other_keys"))


def made_keys(folder: Path) -> Keys:
    """New keys, made as README.md says."""
    keys = Keys(folder / "private.pem", folder / "public.pem")
    openssl(f"genpkey -algorithm ed25519 -out {keys.private}")
    openssl(f"pkey -in {keys.private} -pubout -out {keys.public}")
    return keys


@pytest.fixture(scope="session")
def trial(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[TrialServer]:
    """MLflow with a login on PostgreSQL and an S3-compatible store; users and rights are what tests add to it, under names of their own."""
    base = tmp_path_factory.getbasetemp()
    with team.shared(base if worker_id == "master" else base.parent) as found:
        yield found
