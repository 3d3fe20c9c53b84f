from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.environment_variables import MLFLOW_ALLOW_PICKLE_DESERIALIZATION
from mlflow.exceptions import MlflowException
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

import mlflow_sb3
from mlflow_sb3.registry import versions
from tests.conftest import Keys
from tests.exchange.folders import write_hub_folder, write_zoo_folder

pytestmark = pytest.mark.usefixtures("store")


class Payload:
    """An object whose unpickling creates a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


def observe(count: int = 50) -> Any:
    return np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)


def test_an_agent_of_rl_zoo3_is_logged_and_registered(ppo: PPO, tmp_path: Path) -> None:
    config = {"learning_rate": "lin_0.001", "policy_kwargs": "dict(net_arch=[64])", "n_envs": 8}
    folder = write_zoo_folder(
        tmp_path, ppo, "CartPole-v1", config=config, args={"seed": 7, "env_kwargs": {}}
    )

    info = mlflow_sb3.import_agent(folder, registered_model_name="cartpole", allow_pickle=True)

    run = mlflow.get_run(str(info.run_id))
    version = versions.find_version("cartpole", alias="challenger")
    tags = mlflow.MlflowClient().get_model_version("cartpole", "1").tags
    policy = mlflow_sb3.load_policy(version.uri)
    description = mlflow.MlflowClient().get_model_version("cartpole", "1").description
    assert str(description).startswith("**Model card**: PPO agent for CartPole-v1")
    assert run.info.run_name == "import CartPole-v1.zip"
    assert run.info.status == "FINISHED"
    assert (
        run.data.params.items()
        >= {
            "sb3/algo": "ppo",
            "sb3/env": "CartPole-v1",
            "sb3/n_steps": "64",
            "sb3/learning_rate": "lin_0.001",
            "sb3/policy_kwargs": "dict(net_arch=[64])",
            "sb3/n_envs": "8",
            "sb3/seed": "7",
            "sb3/timesteps": "64",
        }.items()
    )
    assert run.data.tags["mlflow_sb3.imported_from"] == str(folder / "CartPole-v1.zip")
    assert len(run.data.tags["mlflow_sb3.imported_digest"]) == 64
    assert "mlflow_sb3.claimed_mean_return" not in run.data.tags
    assert (version.number, version.signature) == (1, None)
    assert (
        tags.items()
        >= {
            "mlflow_sb3.algo": "ppo",
            "mlflow_sb3.inference": "onnx",
            "mlflow_sb3.state": "challenger",
            "mlflow_sb3.imported_from": str(folder / "CartPole-v1.zip"),
        }.items()
    )
    np.testing.assert_array_equal(
        policy.predict(observe())[0], ppo.predict(observe(), deterministic=True)[0]
    )


def test_an_agent_of_hugging_face_keeps_its_claim_as_a_tag(ppo: PPO, tmp_path: Path) -> None:
    folder = write_hub_folder(tmp_path / "repository", ppo, "ppo-CartPole-v1", "CartPole-v1")

    info = mlflow_sb3.import_agent(folder, registered_model_name="a", allow_pickle=True)

    run = mlflow.get_run(str(info.run_id))
    version_tags = mlflow.MlflowClient().get_model_version("a", "1").tags
    assert run.data.tags["mlflow_sb3.claimed_mean_return"] == "499.50 +/- 0.25"
    assert version_tags["mlflow_sb3.claimed_mean_return"] == "499.50 +/- 0.25"
    assert run.data.metrics == {}
    assert "mlflow_sb3.score" not in version_tags


def test_a_lonely_file_is_logged_to_the_active_run(ppo: PPO, tmp_path: Path) -> None:
    ppo.save(tmp_path / "agent.zip")

    with mlflow.start_run(run_name="mine") as run:
        info = mlflow_sb3.import_agent(
            tmp_path / "agent.zip",
            algo="ppo",
            env="CartPole-v1",
            allow_pickle=True,
        )

    assert info.run_id == run.info.run_id
    assert mlflow.get_run(run.info.run_id).info.run_name == "mine"
    assert info.registered_model_version is None
    assert mlflow_sb3.load_policy(info.model_uri).environment is not None


def test_statistics_become_a_part_of_the_graph(tmp_path: Path) -> None:
    vec_env = VecNormalize(make_vec_env("CartPole-v1"))
    model = PPO("MlpPolicy", vec_env, n_steps=64, device="cpu").learn(64)
    folder = write_zoo_folder(tmp_path, model, "CartPole-v1", config={"normalize": True})

    info = mlflow_sb3.import_agent(folder, allow_pickle=True)

    expected, _ = model.predict(vec_env.normalize_obs(observe()), deterministic=True)
    actions, _ = mlflow_sb3.load_policy(info.model_uri).predict(observe())
    np.testing.assert_array_equal(actions, expected)


@pytest.fixture
def hostile(ppo: PPO, tmp_path: Path) -> Path:
    """A folder whose statistics create the folder `canary` when they are unpickled."""
    folder = write_zoo_folder(tmp_path, ppo, "CartPole-v1", config={"normalize": True})
    (folder / "CartPole-v1" / "vecnormalize.pkl").write_bytes(
        pickle.dumps(Payload(tmp_path / "canary"))
    )
    return folder


def test_without_consent_nothing_is_unpickled_and_each_file_is_named(
    hostile: Path, tmp_path: Path
) -> None:
    message = (
        rf"The import would unpickle {hostile}/CartPole-v1\.zip \(the agent\) and "
        rf"{hostile}/CartPole-v1/vecnormalize\.pkl \(the statistics of VecNormalize\), which can "
        r"run any code\. If you trust its author, pass allow_pickle=True"
    )

    with pytest.raises(MlflowException, match=message):
        mlflow_sb3.import_agent(hostile)

    assert not (tmp_path / "canary").exists()
    assert mlflow.search_runs(output_format="list") == []


def test_the_variable_of_mlflow_overrules_the_consent(
    hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MLFLOW_ALLOW_PICKLE_DESERIALIZATION.name, "false")
    message = r"vecnormalize\.pkl .*, but MLFLOW_ALLOW_PICKLE_DESERIALIZATION is false"

    with pytest.raises(MlflowException, match=message):
        mlflow_sb3.import_agent(hostile, allow_pickle=True)

    assert not (tmp_path / "canary").exists()


def test_with_consent_the_statistics_are_unpickled(hostile: Path, tmp_path: Path) -> None:
    with pytest.raises(MlflowException, match=r"vecnormalize\.pkl cannot be loaded"):
        mlflow_sb3.import_agent(hostile, allow_pickle=True)

    assert (tmp_path / "canary").exists()


def test_a_version_can_be_signed(ppo: PPO, keys: Keys, tmp_path: Path) -> None:
    folder = write_zoo_folder(tmp_path, ppo, "CartPole-v1")

    mlflow_sb3.import_agent(
        folder, registered_model_name="a", allow_pickle=True, signing_key=keys.private
    )

    policy = mlflow_sb3.load_policy("models:/a/1", public_key=keys.public)
    assert policy.predict(observe())[0].shape == (50,)
    with pytest.raises(MlflowException, match="is passed without registered_model_name"):
        mlflow_sb3.import_agent(folder, allow_pickle=True, signing_key=keys.private)
