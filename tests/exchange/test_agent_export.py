from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize

import mlflow_sb3
from mlflow_sb3.envs import env_spec
from mlflow_sb3.exchange import zoo_yaml
from mlflow_sb3.registry.model_version import Version
from tests.conftest import Keys


def export(model: BaseAlgorithm, folder: Path) -> Path:
    mlflow_sb3.save_model(model, folder / "model")
    return mlflow_sb3.export_agent(str(folder / "model"), folder / "exported")


def list_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_folder_has_the_files_of_rl_zoo3_and_of_hugging_face(
    ppo: PPO, saved: Path, tmp_path: Path
) -> None:
    folder = mlflow_sb3.export_agent(str(saved), tmp_path / "exported")

    assert folder == tmp_path / "exported"
    assert list_files(folder) == {
        "README.md",
        "args.yml",
        "config.yml",
        "env_kwargs.yml",
        "ppo-CartPole-v1.zip",
        "train_eval_metrics.zip",
        "ppo/CartPole-v1_1/CartPole-v1.zip",
        "ppo/CartPole-v1_1/CartPole-v1/args.yml",
        "ppo/CartPole-v1_1/CartPole-v1/config.yml",
        "ppo/CartPole-v1_1/CartPole-v1/env_kwargs.yml",
    }
    assert (folder / "ppo-CartPole-v1.zip").read_bytes() == (
        saved / "agent" / "agent.zip"
    ).read_bytes()
    with zipfile.ZipFile(folder / "train_eval_metrics.zip") as archive:
        assert archive.namelist() == []
    assert zoo_yaml.read_zoo_yaml(folder / "args.yml").items() >= {"algo": "ppo", "seed": 0}.items()
    assert "# PPO agent for CartPole-v1" in (folder / "README.md").read_text()


def test_nothing_is_unpickled(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    monkeypatch.setattr("cloudpickle.loads", None)
    monkeypatch.setattr("pickle.load", None)

    folder = mlflow_sb3.export_agent(str(saved), tmp_path / "exported")

    assert (folder / "ppo-CartPole-v1.zip").exists()


def test_the_statistics_are_those_of_the_agent(tmp_path: Path) -> None:
    vec_env = VecNormalize(make_vec_env("Pendulum-v1", n_envs=2), clip_obs=3.0)
    model = PPO("MlpPolicy", vec_env, n_steps=64, device="cpu").learn(128)
    observations = np.random.default_rng(0).normal(size=(50, 3)) * 3

    folder = export(model, tmp_path)

    for name in ("vec_normalize.pkl", "ppo/Pendulum-v1_1/Pendulum-v1/vecnormalize.pkl"):
        loaded = VecNormalize.load(str(folder / name), make_vec_env("Pendulum-v1"))
        np.testing.assert_array_equal(
            loaded.normalize_obs(observations), vec_env.normalize_obs(observations)
        )
        assert loaded.gamma == vec_env.gamma
        assert loaded.ret_rms.var == vec_env.ret_rms.var


def test_an_exported_agent_can_be_imported_again(store: str, tmp_path: Path) -> None:
    vec_env = VecNormalize(VecFrameStack(make_vec_env("Pendulum-v1"), 3))
    model = PPO("MlpPolicy", vec_env, n_steps=64, device="cpu").learn(64)
    exported = export(model, tmp_path)

    info = mlflow_sb3.import_agent(exported, allow_pickle=True)

    before = mlflow_sb3.load_policy(str(tmp_path / "model"))
    after = mlflow_sb3.load_policy(info.model_uri)
    observations = np.random.default_rng(0).normal(size=(50, 9)).astype(np.float32)
    np.testing.assert_array_equal(after.predict(observations)[0], before.predict(observations)[0])
    assert env_spec.is_same_env(str(after.environment), str(before.environment))


def test_a_model_card_becomes_the_readme(saved: Path, tmp_path: Path) -> None:
    card = "---\nlibrary_name: stable-baselines3\n---\n# My card\n"
    copied = tmp_path / "copy"
    shutil.copytree(saved, copied)
    (copied / "MODEL_CARD.md").write_text(card)

    folder = mlflow_sb3.export_agent(str(copied), tmp_path / "exported")

    assert (folder / "README.md").read_text() == card


def test_an_existing_folder_is_not_overwritten(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()

    mlflow_sb3.export_agent(str(saved), tmp_path / "empty")
    for name in ("full", "full/mine.txt"):
        with pytest.raises(MlflowException, match=r"exists and is not an empty folder"):
            mlflow_sb3.export_agent(str(saved), tmp_path / name)

    assert list_files(tmp_path / "full") == {"mine.txt"}


def test_a_changed_agent_is_not_exported(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "copy")
    (tmp_path / "copy" / "agent" / "agent.zip").write_bytes(b"changed")

    with pytest.raises(MlflowException, match=r"agent\.zip has changed since it was saved"):
        mlflow_sb3.export_agent(str(tmp_path / "copy"), tmp_path / "exported")

    assert not (tmp_path / "exported").exists()


def test_only_the_right_public_key_exports_a_version(
    signed: Version, keys: Keys, other_keys: Keys, tmp_path: Path
) -> None:
    uri = "models:/agent@champion"

    with pytest.raises(MlflowException, match="another key signed the version"):
        mlflow_sb3.export_agent(uri, tmp_path / "exported", public_key=other_keys.public)
    folder = mlflow_sb3.export_agent(uri, tmp_path / "exported", public_key=keys.public)

    assert (folder / "ppo-CartPole-v1.zip").exists()


def test_a_maskable_agent_has_only_the_files_of_hugging_face(tmp_path: Path) -> None:
    env = gymnasium.make("tests.environments:Masked-v0")
    model = MaskablePPO("MlpPolicy", env, n_steps=8, batch_size=8)

    folder = export(model, tmp_path)

    assert (folder / "ppo_mask-Masked-v0.zip").exists()
    assert not (folder / "ppo_mask").exists()
