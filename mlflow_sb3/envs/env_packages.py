"""Import the package of an environment by the usual id of the environment.

Gymnasium knows an environment of another package only after the package was imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import dataclass

import gymnasium
from gymnasium.error import DependencyNotInstalled
from mlflow.exceptions import MlflowException

from mlflow_sb3.envs.wrapper_config import format_cause


@dataclass(frozen=True)
class EnvPackage:
    """A package with environments."""

    ids: str
    """Regular expression of the ids of its environments."""
    module: str
    """Module that registers them when it is imported."""
    pip: str
    """Name for ``pip install``."""

    def has(self, env_id: str) -> bool:
        """Return whether an id has the form of the ids in this package."""
        return re.fullmatch(self.ids, env_id) is not None


PACKAGES = (
    EnvPackage(r"ALE/.+|.+(NoFrameskip|Deterministic)-v[04]", "ale_py", "ale-py"),
    EnvPackage(r"(MiniGrid|BabyAI)-.+", "minigrid", "minigrid"),
    EnvPackage(
        r"(exit|highway|intersection|lane-keeping|merge|parking|racetrack|roundabout|two-way"
        r"|u-turn)-.+",
        "highway_env",
        "highway-env",
    ),
    EnvPackage(
        r"(AdroitHand|AntMaze|Fetch|FrankaKitchen|HandManipulate|HandReach|PointMaze).+",
        "gymnasium_robotics",
        "gymnasium-robotics",
    ),
)
"""Packages whose environments need no module in front of their id."""


def find_pip_command(error: DependencyNotInstalled) -> str:
    """Return the commands in an error of Gymnasium, or the whole message if it has none."""
    commands = re.findall("`(pip install [^`]+)`", str(error))
    return " && ".join(commands) or format_cause(error)


def register_env(env_id: str) -> None:
    """Import the package of an environment, if the id is not registered and the package is known.

    Args:
        env_id: Gymnasium id. An id with a module in front is left to Gymnasium.

    Raises:
        MlflowException: The package is not installed.
    """
    if ":" in env_id or env_id in gymnasium.registry:
        return
    for package in PACKAGES:
        if not package.has(env_id):
            continue
        if importlib.util.find_spec(package.module) is None:
            raise MlflowException.invalid_parameter_value(
                f"environment {env_id!r} is in the package {package.pip}, which is not installed. "
                f"Install it: pip install {package.pip}"
            )
        importlib.import_module(package.module)
