"""Write the agent of a logged model to a folder for rl_zoo3 and Hugging Face."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from mlflow.exceptions import MlflowException

from mlflow_sb3.flavor import policy_loader
from mlflow_sb3.flavor.train_extra import check_train_extra
from mlflow_sb3.inference.agent_files import AGENT_DIR, AGENT_ZIP, AgentInfo
from mlflow_sb3.registry import integrity

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecNormalize

    from mlflow_sb3.exchange.zoo_config import ZooConfig
    from mlflow_sb3.flavor.vec_normalize import Statistics
    from mlflow_sb3.registry.signing import KeyPath

MODEL_CARD = "MODEL_CARD.md"
"""File of a model that becomes the ``README.md`` of the folder."""
_NOT_IN_ZOO = ("ppo_mask",)
"""Algorithms that ``rl_zoo3.enjoy`` cannot play."""


def export_agent(
    model_uri: str, folder: str | os.PathLike[str], *, public_key: KeyPath | None = None
) -> Path:
    """Write the agent of a logged model to a folder for rl_zoo3 and Hugging Face.

    The folder has two parts. ``python -m rl_zoo3.enjoy --folder FOLDER`` plays the agent in
    ``<algo>/<env>_1``. The files at the top have the names of a Hugging Face repository: upload the
    folder, and ``huggingface_sb3.load_from_hub`` and ``rl_zoo3.load_from_hub`` find the agent.

    Nothing is unpickled. SB3 and rl_zoo3 unpickle the files when they load the folder.

    Args:
        model_uri: As in ``load_policy``.
        folder: Folder to write to. It must be empty, or not exist.
        public_key: As in ``load_policy``.

    Returns:
        The folder.

    Raises:
        MlflowException: The folder is not empty, rl_zoo3 does not know the algorithm of the agent
            or cannot make its environment, or a check of ``load_policy`` failed.
    """
    check_train_extra("export_agent")
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise MlflowException.invalid_parameter_value(
            f"{str(target)!r} exists and is not an empty folder. Pass a new folder."
        )
    with integrity.fetch_uri(model_uri, public_key=public_key) as source:
        agent = _read_agent(source)
        card = source / MODEL_CARD
        text = card.read_text() if card.exists() else None
    target.mkdir(parents=True, exist_ok=True)
    _write_hub_files(agent, target)
    if agent.zoo.algo not in _NOT_IN_ZOO:
        _write_zoo_files(agent, target)
    from mlflow_sb3.exchange import readme

    (target / "README.md").write_text(text or readme.build_readme(agent.info, agent.zoo))
    return target


@dataclass(frozen=True)
class _ExportedAgent:
    """The files of an agent to export."""

    info: AgentInfo
    archive: bytes
    """SB3's zip file."""
    vec_normalize: VecNormalize | None
    """None if the observations of the agent are not normalized."""
    zoo: ZooConfig

    def write(self, archive: Path, settings: Path, statistics: str) -> None:
        """Write SB3's zip file, the YAML files, and the statistics to a file of this name."""
        settings.mkdir(parents=True, exist_ok=True)
        archive.write_bytes(self.archive)
        _write_yaml(settings / "args.yml", self.zoo.args)
        _write_yaml(settings / "config.yml", self.zoo.config)
        _write_yaml(settings / "env_kwargs.yml", self.zoo.env_kwargs)
        if self.vec_normalize is not None:
            self.vec_normalize.save(str(settings / statistics))


def _read_agent(source: Path) -> _ExportedAgent:
    """Read the agent in the folder of a model."""
    from mlflow_sb3.exchange import zoo_config
    from mlflow_sb3.flavor import sb3_policy

    info = policy_loader.read_agent_info(source)
    try:
        archive = (source / AGENT_DIR / AGENT_ZIP).read_bytes()
        info.check_digest(AGENT_ZIP, archive)
        statistics = sb3_policy.load_statistics(source / AGENT_DIR, info)
    except (OSError, ValueError) as error:
        raise MlflowException.invalid_parameter_value(
            f"The agent of this model cannot be exported: {error}"
        ) from error
    zoo = zoo_config.build_config(info, archive, statistics)
    vec_normalize = None if statistics is None else _make_vec_normalize(info, statistics)
    return _ExportedAgent(info, archive, vec_normalize, zoo)


def _make_vec_normalize(info: AgentInfo, statistics: Statistics) -> VecNormalize:
    """Make the ``VecNormalize`` of an agent, with the spaces of its environment."""
    from mlflow_sb3.algorithms import builder
    from mlflow_sb3.envs import env_spec
    from mlflow_sb3.flavor import vec_normalize

    with env_spec.make_from_spec(str(info.env_spec_json)) as env:
        shifted = builder.start_spaces_at_zero(env)
        spaces = shifted.observation_space, shifted.action_space
    return vec_normalize.make_standalone(statistics, *spaces)


def _write_hub_files(agent: _ExportedAgent, folder: Path) -> None:
    from mlflow_sb3.exchange.agent_folder import HUB_STATISTICS, METRICS_ZIP

    name = f"{agent.zoo.algo}-{agent.zoo.env_name}.zip"
    agent.write(folder / name, folder, HUB_STATISTICS)
    # rl_zoo3.load_from_hub fails without this file.
    with zipfile.ZipFile(folder / METRICS_ZIP, "w"):
        pass


def _write_zoo_files(agent: _ExportedAgent, folder: Path) -> None:
    from mlflow_sb3.exchange.agent_folder import ZOO_STATISTICS

    training = folder / agent.zoo.algo / f"{agent.zoo.env_name}_1"
    settings = training / agent.zoo.env_name
    settings.mkdir(parents=True)
    agent.write(training / f"{agent.zoo.env_name}.zip", settings, ZOO_STATISTICS)


def _write_yaml(path: Path, values: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(values))
