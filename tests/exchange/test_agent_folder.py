from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from stable_baselines3 import PPO

from mlflow_sb3.exchange.agent_folder import find_agent
from tests.exchange.folders import write_hub_folder, write_yaml, write_zoo_folder


def test_the_best_agent_of_a_zoo_folder_is_found(ppo: PPO, tmp_path: Path) -> None:
    folder = write_zoo_folder(tmp_path, ppo, "CartPole-v1", config={"n_envs": 8})
    shutil.copy(folder / "CartPole-v1.zip", folder / "rl_model_32_steps.zip")
    last = find_agent(folder)
    shutil.copy(folder / "CartPole-v1.zip", folder / "best_model.zip")

    best = find_agent(folder)

    assert last.archive == folder / "CartPole-v1.zip"
    assert best.archive == folder / "best_model.zip"
    assert (best.algo, best.env_id, best.statistics) == ("ppo", "CartPole-v1", None)
    assert best.config == {"n_envs": 8, "policy": "MlpPolicy"}


def test_a_file_in_a_zoo_folder_is_described_by_the_folder(ppo: PPO, tmp_path: Path) -> None:
    folder = write_zoo_folder(tmp_path, ppo, "CartPole-v1", args={"seed": 7})
    shutil.copy(folder / "CartPole-v1.zip", folder / "rl_model_32_steps.zip")

    found = find_agent(folder / "rl_model_32_steps.zip")

    assert found.archive.name == "rl_model_32_steps.zip"
    assert (found.algo, found.env_id, found.args["seed"]) == ("ppo", "CartPole-v1", 7)


def test_a_zoo_folder_without_arguments_is_named_by_its_folders(ppo: PPO, tmp_path: Path) -> None:
    folder = write_zoo_folder(tmp_path, ppo, "CartPole-v1", algo="trpo")
    (folder / "CartPole-v1" / "args.yml").unlink()

    found = find_agent(folder)

    assert (found.algo, found.env_id, found.config) == (
        "trpo",
        "CartPole-v1",
        {"policy": "MlpPolicy"},
    )


def test_the_statistics_belong_to_the_agent_only_with_normalize(ppo: PPO, tmp_path: Path) -> None:
    folder = write_zoo_folder(tmp_path, ppo, "CartPole-v1")
    settings = folder / "CartPole-v1"
    (settings / "vecnormalize.pkl").touch()
    without = find_agent(folder)
    write_yaml(settings / "config.yml", {"normalize": "dict(norm_reward=False)"})

    assert without.statistics is None
    assert find_agent(folder).statistics == settings / "vecnormalize.pkl"
    (settings / "vecnormalize.pkl").unlink()
    with pytest.raises(MlflowException, match=r"normalize='dict\(norm_reward=False\)', but the st"):
        find_agent(folder)


def test_a_hub_folder_is_described_by_its_card(ppo: PPO, tmp_path: Path) -> None:
    folder = write_hub_folder(tmp_path / "repository", ppo, "my-agent", "LunarLander-v2")
    (folder / "vec_normalize.pkl").touch()
    (folder / "train_eval_metrics.zip").touch()

    found = find_agent(folder)

    assert found.archive == folder / "my-agent.zip"
    assert (found.algo, found.env_id) == ("ppo", "LunarLander-v2")
    assert found.statistics == folder / "vec_normalize.pkl"
    assert found.claimed_return == "499.50 +/- 0.25"


def test_a_hub_file_name_says_what_the_card_does_not(ppo: PPO, tmp_path: Path) -> None:
    folder = write_hub_folder(tmp_path / "repository", ppo, "ppo_lstm-CartPole-v1", "")
    (folder / "README.md").unlink()

    found = find_agent(folder)

    assert (found.algo, found.env_id) == ("ppo_lstm", "CartPole-v1")


def test_the_yaml_files_of_a_hub_folder_of_rl_zoo3_are_read(ppo: PPO, tmp_path: Path) -> None:
    folder = write_hub_folder(tmp_path / "repository", ppo, "ppo-ALE-Pong-v5", "wrong")
    write_yaml(folder / "args.yml", {"algo": "ppo", "env": "ALE/Pong-v5"})
    write_yaml(folder / "config.yml", {"frame_stack": 4})

    found = find_agent(folder)

    assert (found.env_id, found.config) == ("ALE/Pong-v5", {"frame_stack": 4})


def test_an_unpacked_agent_is_packed_again(ppo: PPO, tmp_path: Path) -> None:
    folder = write_hub_folder(tmp_path / "repository", ppo, "ppo-CartPole-v1", "CartPole-v1")
    (folder / "ppo-CartPole-v1.zip").unlink()

    loaded = PPO.load(find_agent(folder).open_archive())

    assert loaded.num_timesteps == ppo.num_timesteps


def test_the_caller_overrides_the_files(ppo: PPO, tmp_path: Path) -> None:
    folder = write_zoo_folder(tmp_path, ppo, "CartPole-v1")

    found = find_agent(folder, algo="a2c", env_id="CartPole-v0")

    assert (found.algo, found.env_id) == ("a2c", "CartPole-v0")


def test_a_yaml_file_next_to_a_lonely_agent_is_not_read(ppo: PPO, tmp_path: Path) -> None:
    ppo.save(tmp_path / "agent.zip")
    (tmp_path / "config.yml").write_text("frame_stack: 4")

    assert find_agent(tmp_path / "agent.zip", algo="ppo", env_id="CartPole-v1").config == {}


def test_the_caller_must_say_what_the_files_do_not(ppo: PPO, tmp_path: Path) -> None:
    ppo.save(tmp_path / "agent.zip")

    with pytest.raises(MlflowException, match=r"do not name the algorithm .* Pass algo, such as"):
        find_agent(tmp_path / "agent.zip", env_id="CartPole-v1")
    with pytest.raises(MlflowException, match=r"do not name the environment .* Pass env, such as"):
        find_agent(tmp_path / "agent.zip", algo="ppo")


def test_a_folder_needs_exactly_one_agent(ppo: PPO, tmp_path: Path) -> None:
    with pytest.raises(MlflowException, match=r"nothing' does not exist\. Pass a zip file"):
        find_agent(tmp_path / "nothing")
    with pytest.raises(MlflowException, match=r"has no zip file of SB3\. Pass the folder of one"):
        find_agent(tmp_path)
    (tmp_path / "a.zip").touch()
    (tmp_path / "b.zip").touch()
    with pytest.raises(MlflowException, match=r"several agents: a\.zip, b\.zip\. Pass the path"):
        find_agent(tmp_path)
