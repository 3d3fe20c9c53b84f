"""A SQLite store for each test, and tiny agents that were trained for real."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import mlflow
import pytest
import torch
from filelock import FileLock
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
"""The constant action of each version of the registered model `levels`.

Versions 1 and 2 differ little, versions 3 and 4 are equal, and version 5 is the best.
"""

# The tests start hundreds of processes. Without this, each of them compiles the project, and in new
# environments all packages, again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

MakeOnce = Callable[[str, Callable[[Path], None]], Path]
"""Make a folder of a name by calling a function once, however many workers need it."""


@dataclass(frozen=True)
class Keys:
    """The two files of an Ed25519 key."""

    private: Path
    public: Path


def openssl(arguments: str) -> None:
    """Run openssl as a user does to make keys."""
    subprocess.run(["openssl", *arguments.split()], check=True, capture_output=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let every worker start with long tests, so that none waits for another one at the end.

    pytest-xdist gives each worker a part of the list. All parts have the same length.
    """
    n_workers: int = getattr(config, "workerinput", {"workercount": 1})["workercount"]
    groups: dict[int, list[pytest.Item]] = {0: [], 1: [], 2: []}
    for item in items:
        groups[_get_group(item)].append(item)
    parts = (
        part
        for worker in range(n_workers)
        for part in (
            groups[0][worker::n_workers],
            *(
                tests[len(tests) * worker // n_workers : len(tests) * (worker + 1) // n_workers]
                for tests in (groups[1], groups[2])
            ),
        )
    )
    items[:] = [item for part in parts for item in part]


def _get_group(item: pytest.Item) -> int:
    """Return 0 for a test that mostly waits for a network, 1 for another long test, else 2."""
    if item.path.name in ("test_outage.py", "test_network.py", "test_schedules.py"):
        return 0
    has_marker = any(item.get_closest_marker(name) for name in ("envs", "postgres", "process"))
    return 1 if has_marker or item.path.parent.name == "faults" else 2


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> MakeOnce:
    """Return a function that makes a folder once for all workers of the test session."""
    base = tmp_path_factory.getbasetemp()
    parent = base if worker_id == "master" else base.parent

    def make(name: str, build: Callable[[Path], None]) -> Path:
        folder = parent / f"shared-{name}"
        with FileLock(f"{folder}.lock"):
            if not (parent / f"{folder.name}.done").exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                build(folder)
                (parent / f"{folder.name}.done").touch()
        return folder

    return make


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    """Use one thread, as training does: more threads are slower on small networks."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _one_operator_registry() -> None:
    """Build PyTorch's table of ONNX operators once.

    PyTorch 2.13 builds it for every export, which takes half of the time of an export.
    """
    ONNXRegistry.from_torchlib = staticmethod(  # type: ignore[method-assign]
        functools.cache(ONNXRegistry.from_torchlib)
    )


@pytest.fixture(autouse=True)
def _own_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs keep their local state in a folder of the test, and trust no more modules."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("MLFLOW_SB3_TRUSTED_MODULES", "")


@pytest.fixture(autouse=True)
def _own_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset the active experiment, which MLflow keeps for the process and its children."""
    monkeypatch.setattr(fluent, "_active_experiment_id", None)
    monkeypatch.setenv(MLFLOW_EXPERIMENT_ID.name, "")  # monkeypatch then restores it after the test
    monkeypatch.delenv(MLFLOW_EXPERIMENT_ID.name)


@pytest.fixture(scope="session")
def empty_store(make_once: MakeOnce) -> Path:
    """A store with its tables. Copying this file is faster than creating the tables again."""

    def build(folder: Path) -> None:
        MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()

    return make_once("empty-store", build) / "mlflow.db"


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of a tracking store of this test, with an active experiment."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    before = mlflow.get_tracking_uri()
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(experiment_id=_create_experiment("test", tmp_path))
    yield uri
    mlflow.set_tracking_uri(before)


def _create_experiment(name: str, folder: Path) -> str:
    location = (folder / "artifacts").as_uri()
    return str(mlflow.create_experiment(name, artifact_location=location))


@pytest.fixture(scope="session")
def levels_store(empty_store: Path, make_once: MakeOnce) -> Path:
    """A store with five versions of the model `levels`, one for each action of ``LEVELS``."""

    def build(folder: Path) -> None:
        shutil.copy(empty_store, folder / "mlflow.db")
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.set_experiment(experiment_id=_create_experiment("levels", folder))
        with mlflow.start_run():
            for level in LEVELS:
                register_level(level)
        mlflow.set_tracking_uri(before)

    return make_once("levels", build) / "mlflow.db"


@pytest.fixture
def levels(store: str, levels_store: Path, tmp_path: Path) -> Iterator[list[model_version.Version]]:
    """The versions of `levels` in a store of this test, inside an active run.

    All tests share the files of the versions, so a test must not change them.
    """
    shutil.copy(levels_store, tmp_path / "levels.db")
    mlflow.set_tracking_uri(store.replace("mlflow.db", "levels.db"))
    mlflow.set_experiment("levels")
    with mlflow.start_run():
        yield [versions.find_version("levels", number=1 + index) for index in range(len(LEVELS))]


def register_level(level: int, name: str = "levels", **kwargs: Any) -> model_version.Version:
    """Register an agent that always takes the same action."""
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
    """The folder of a file system of one megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def registered(store: str, ppo: PPO) -> model_version.Version:
    """Version 1 of the registered model `agent`."""
    import mlflow_sb3

    mlflow_sb3.log_model(ppo, name="agent", registered_model_name="agent")
    return versions.find_version("agent", number=1)


@pytest.fixture
def signed(store: str, ppo: PPO, keys: Keys) -> model_version.Version:
    """Version 1 of the registered model `agent`, signed with `keys`, with the alias champion."""
    import mlflow_sb3

    mlflow_sb3.log_model(ppo, name="agent", registered_model_name="agent", signing_key=keys.private)
    versions.set_alias("agent", "champion", 1)
    return versions.find_version("agent", number=1)


@pytest.fixture(scope="session")
def saved(ppo: PPO, make_once: MakeOnce) -> Path:
    """The folder of a saved model."""
    import mlflow_sb3

    return make_once("saved", lambda folder: mlflow_sb3.save_model(ppo, folder / "model")) / "model"


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The keys of a trusted person."""
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def other_keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The keys of another person."""
    return make_keys(tmp_path_factory.mktemp("other_keys"))


def make_keys(folder: Path) -> Keys:
    """Make new keys with the commands of the documentation."""
    keys = Keys(folder / "private.pem", folder / "public.pem")
    openssl(f"genpkey -algorithm ed25519 -out {keys.private}")
    openssl(f"pkey -in {keys.private} -pubout -out {keys.public}")
    return keys


@pytest.fixture(scope="session")
def trial(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[TrialServer]:
    """MLflow with a login, on PostgreSQL and an S3-compatible store.

    All tests share the server. Each test adds users and models under names of its own.
    """
    base = tmp_path_factory.getbasetemp()
    with team.shared(base if worker_id == "master" else base.parent) as server:
        yield server
