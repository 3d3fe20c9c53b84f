"""Write folders as rl_zoo3 and huggingface_sb3 do, and play exported ones."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import yaml
from stable_baselines3.common.base_class import BaseAlgorithm

from tests import ROOT


def write_yaml(path: Path, values: dict[str, Any]) -> None:
    """Write a file with the Python tag that rl_zoo3 writes."""
    path.write_text(yaml.dump(OrderedDict(sorted(values.items()))))


def write_zoo_folder(
    parent: Path,
    model: BaseAlgorithm,
    env_id: str,
    *,
    algo: str = "ppo",
    config: dict[str, Any] | None = None,
    args: dict[str, Any] | None = None,
) -> Path:
    """Write the folder of a training of rl_zoo3, and return it."""
    name = env_id.replace("/", "-")
    folder = parent / algo / f"{name}_1"
    settings = folder / name
    settings.mkdir(parents=True)
    model.save(folder / f"{name}.zip")
    write_yaml(
        settings / "args.yml", {"algo": algo, "env": env_id, "env_kwargs": None} | (args or {})
    )
    write_yaml(settings / "config.yml", {"policy": "MlpPolicy"} | (config or {}))
    if (vec_normalize := model.get_vec_normalize_env()) is not None:
        vec_normalize.save(str(settings / "vecnormalize.pkl"))
    return folder


def write_hub_folder(folder: Path, model: BaseAlgorithm, name: str, env_id: str) -> Path:
    """Write the files of ``huggingface_sb3.package_to_hub``, and return the folder."""
    folder.mkdir()
    model.save(folder / name)
    with zipfile.ZipFile(folder / f"{name}.zip") as archive:
        archive.extractall(folder / name)
        (folder / "config.json").write_bytes(archive.read("data"))
    if (vec_normalize := model.get_vec_normalize_env()) is not None:
        vec_normalize.save(str(folder / "vec_normalize.pkl"))
    results = {"mean_reward": 499.5, "std_reward": 0.25, "n_eval_episodes": 10}
    (folder / "results.json").write_text(json.dumps(results))
    card = {
        "library_name": "stable-baselines3",
        "model-index": [{"name": type(model).__name__, "results": [{"dataset": {"name": env_id}}]}],
    }
    (folder / "README.md").write_text(f"---\n{yaml.dump(card)}---\n\n# **PPO** Agent\n")
    (folder / "replay.mp4").write_bytes(b"video")
    return folder


def run_zoo(module: str, *arguments: str, variables: dict[str, str] | None = None) -> str:
    """Run a module of rl_zoo3 as a process, and return its standard output."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", f"rl_zoo3.{module}", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | (variables or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def enjoy(folder: Path, algo: str, env_id: str, *arguments: str, steps: int = 600) -> list[float]:
    """Play an agent with ``rl_zoo3.enjoy`` for some steps, and return the episodes' rewards."""
    options = ["--algo", algo, "--env", env_id, "--folder", str(folder), "--no-render"]
    output = run_zoo("enjoy", *options, "-n", str(steps), "--seed", "3", *arguments)
    return [float(text) for text in re.findall(r"Episode Reward: (\S+)", output)]
