from __future__ import annotations

import yaml
from stable_baselines3 import PPO

from mlflow_sb3.exchange.readme import build_readme
from mlflow_sb3.exchange.zoo_config import ZooConfig, build_config
from mlflow_sb3.flavor import model_writer


def test_the_readme_has_the_header_of_hugging_face_and_the_facts(ppo: PPO) -> None:
    prepared = model_writer.prepare_model(ppo, None, inference="native")
    info = prepared.agent_info
    zoo = build_config(info, prepared.files["agent.zip"], None)

    text = build_readme(info, zoo)

    _, header, body = text.split("---\n", 2)
    assert yaml.safe_load(header)["library_name"] == "stable-baselines3"
    assert "CartPole-v1" in yaml.safe_load(header)["tags"]
    assert "| training steps | 64 |" in body
    assert "| observations normalized | no |" in body
    assert f"| SHA-256 of `ppo-CartPole-v1.zip` | `{info.digests['agent.zip']}` |" in body
    assert "enjoy --algo ppo --env CartPole-v1 --folder .\n" in body


def test_the_readme_names_the_module_of_another_environment(ppo: PPO) -> None:
    prepared = model_writer.prepare_model(ppo, None, inference="native")
    args = {"gym_packages": ["my_envs"], "env_kwargs": None}
    zoo = ZooConfig("ppo", "my/Env-v0", args, {"n_timesteps": 9, "normalize": "dict()"})

    text = build_readme(prepared.agent_info, zoo)

    assert "--env my/Env-v0 --folder . --gym-packages my_envs\n" in text
    assert "`ppo-my-Env-v0.zip`" in text
    assert "| observations normalized | yes |" in text
