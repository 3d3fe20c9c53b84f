"""Tests of the step import."""

from __future__ import annotations

import re
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from stable_baselines3 import PPO

from mlflow_sb3.cli.import_agent import import_agent
from mlflow_sb3.registry import versions
from tests.cli.commands import assert_fails, get_last_run, invoke
from tests.conftest import Keys
from tests.exchange.folders import write_zoo_folder

pytestmark = pytest.mark.usefixtures("store")


def test_the_version_has_the_default_name_and_the_alias_challenger(
    ppo: PPO, keys: Keys, tmp_path: Path
) -> None:
    folder = write_zoo_folder(tmp_path, ppo, "CartPole-v1")
    key = ["--signing-key", str(keys.private)]

    result = invoke(import_agent, "--path", str(folder), "--allow-pickle", "true", *key)

    run = get_last_run()
    line = r"Registered cartpole-v1-ppo/1 as the challenger, digest [0-9a-f]{64}, signed\n"
    assert result.exit_code == 0, result.output
    assert re.search(line, result.stdout)
    assert run.info.run_name == "import cartpole-v1-ppo/1"
    assert run.data.tags["mlflow_sb3.version"] == "cartpole-v1-ppo/1"
    assert versions.find_version("cartpole-v1-ppo", alias="challenger").number == 1


def test_options_describe_what_the_files_do_not(ppo: PPO, tmp_path: Path) -> None:
    ppo.save(tmp_path / "agent.zip")
    options = ["--path", str(tmp_path / "agent.zip"), "--allow-pickle", "true"]

    assert_fails(invoke(import_agent, *options), 1, "do not name the algorithm of the agent")
    limit = '[{"gymnasium.wrappers:TimeLimit": {"max_episode_steps": 9}}]'
    named = [
        "--algo",
        "PPO",
        "--env",
        "CartPole-v1",
        "--env-kwargs",
        '{"sutton_barto_reward": true}',
    ]
    result = invoke(import_agent, *options, *named, "--wrappers", limit, "--model-name", "mine")

    params = get_last_run().data.params
    assert result.exit_code == 0, result.output
    assert MlflowClient().get_model_version("mine", "1").run_id == get_last_run().info.run_id
    assert params["sb3/env_kwargs"] == '{"sutton_barto_reward": true}'
    assert params["sb3/wrappers"] == limit


def test_without_consent_the_run_fails_and_registers_nothing(ppo: PPO, tmp_path: Path) -> None:
    folder = write_zoo_folder(tmp_path, ppo, "CartPole-v1")

    result = invoke(import_agent, "--path", str(folder))

    assert_fails(result, 1, "CartPole-v1.zip (the agent), which can run any code")
    assert MlflowClient().search_registered_models() == []
    assert mlflow.search_logged_models(output_format="list") == []
