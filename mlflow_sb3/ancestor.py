"""A logged agent that training goes on from."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModelInput
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from stable_baselines3.common.base_class import BaseAlgorithm

from mlflow_sb3 import algorithm, arguments, flavor, native, normalization, registry, settings
from mlflow_sb3.agent import AGENT
from mlflow_sb3.policy import ARCHIVE

FROM_MODEL = "mlflow_sb3.from_model"
"""Tag of a training run: the id of the LoggedModel that it went on from."""
_KEPT = ("normalize", "policy", "policy_kwargs")


@dataclass(frozen=True)
class Ancestor:
    """An algorithm with environments of its own, and the LoggedModel that it comes from."""

    model: BaseAlgorithm
    model_id: str | None

    def log_lineage(self, run_id: str) -> None:
        """Say in a training run what it goes on from: as an input of the run, and as a tag."""
        if self.model_id is not None:
            MlflowClient().log_inputs(run_id, models=[LoggedModelInput(self.model_id)])
            mlflow.set_tag(FROM_MODEL, self.model_id)


def load(model_uri: str, algo: str, description: str, hyperparams: dict[str, Any], *, seed: int) -> Ancestor:
    """Load an agent to go on training: with its networks, its optimizer and what it has learned to normalize with.

    The replay buffer is not part of a model, and begins empty. This unpickles.

    Args:
        model_uri: As in ``mlflow_sb3.load_model``.
        algo: What the agent has to be an agent of.
        description: The environment to learn in, as ``EnvSpec`` JSON; it may be another than before, with the same spaces.
        hyperparams: Only those that change; see ``algorithm.build``.
        seed: SB3's seed.

    Raises:
        MlflowException: The agent is one of another algorithm or of other spaces, or a hyperparameter cannot be changed any more.
    """
    settings.check_unpickling_allowed(f"going on from {model_uri}")
    algorithm.check_hyperparams(algo, hyperparams)
    if kept := sorted(set(hyperparams) & set(_KEPT)):
        raise MlflowException.invalid_parameter_value(
            f"hyperparameter {kept[0]!r} cannot be changed: {model_uri} keeps its networks and its normalization; leave it out."
        )
    with registry.fetch_uri(model_uri) as folder:
        card = flavor.read_card(folder)
        cls = algorithm.find(algo)
        if card["algorithm"] != f"{cls.__module__}.{cls.__name__}":
            raise MlflowException.invalid_parameter_value(
                f"{model_uri} is an agent of {card['algorithm']}, not of {algo}; give the algorithm that it was trained with."
            )
        model = _resumed(folder / AGENT, card, description, hyperparams)
        model_id = Model.load(str(folder)).model_id
    model.set_random_seed(seed)
    return Ancestor(model, model_id)


def _resumed(folder: Path, card: dict[str, Any], description: str, hyperparams: dict[str, Any]) -> BaseAlgorithm:
    env = algorithm.vec_env(description, {"n_envs": hyperparams.get("n_envs", _n_envs(folder))})
    learned = native.statistics(folder, card)
    try:
        changed = arguments.of_algorithm(hyperparams, env.action_space)
        return native.load(folder, card, env=env if learned is None else normalization.wrap(env, learned), **changed)
    except algorithm.REFUSALS as error:
        raise MlflowException.invalid_parameter_value(
            f"the agent cannot go on in this environment, or with these hyperparameters: {error}"
        ) from error


def _n_envs(folder: Path) -> int:
    """How many environments the agent learned in at once."""
    with zipfile.ZipFile(folder / ARCHIVE) as archive:
        return int(json.loads(archive.read("data"))["n_envs"])
