"""A logged agent that training goes on from."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModelInput
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import VectorizedActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from mlflow_sb3.algorithms import algorithms
from mlflow_sb3.algorithms.hyperparams import of_algorithm
from mlflow_sb3.flavor import sb3_policy, vec_normalize
from mlflow_sb3.inference import agent_files
from mlflow_sb3.inference.agent_files import AGENT_DIR, AGENT_ZIP
from mlflow_sb3.registry import integrity

FROM_MODEL = "mlflow_sb3.from_model"
"""Tag of a training run: the id of the LoggedModel that it went on from."""
_KEPT = ("normalize", "policy", "policy_kwargs", "use_sde")
_KEPT_WITH_REPLAY = ("ent_coef", "n_steps", "replay_buffer_class", "replay_buffer_kwargs")


@dataclass(frozen=True)
class BaseAgent:
    """An algorithm with environments of its own, and the LoggedModel that it comes from."""

    model: BaseAlgorithm
    model_id: str | None


def log_lineage(run_id: str, model_id: str) -> None:
    """Say in a training run which LoggedModel it goes on from: as an input of the run, and as a tag."""
    client = MlflowClient()
    client.log_inputs(run_id, models=[LoggedModelInput(model_id)])
    client.set_tag(run_id, FROM_MODEL, model_id)


def load_base_agent(
    model_uri: str, algo: str, description: str, hyperparams: dict[str, Any], *, seed: int
) -> BaseAgent:
    """Load an agent to go on training: with its networks, its optimizer and what it has learned to normalize with.

    The replay buffer is not part of a model: it begins empty, and is filled for ``learning_starts`` steps first. This unpickles.

    Args:
        model_uri: As in ``mlflow_sb3.load_model``.
        algo: What the agent has to be an agent of.
        description: The environment to learn in, as ``EnvSpec`` JSON; it may be another than before, with the same spaces.
        hyperparams: Only those that change; see ``algorithms.build``.
        seed: SB3's seed.

    Raises:
        MlflowException: The agent is one of another algorithm or of other spaces, or a hyperparameter cannot be changed any more.
    """
    from mlflow_sb3.flavor import policy_loader

    agent_files.check_unpickling_allowed(f"going on from {model_uri}")
    algorithms.check_hyperparams(algo, hyperparams)
    cls = algorithms.find_algorithm(algo)
    fixed = _KEPT + (_KEPT_WITH_REPLAY if issubclass(cls, OffPolicyAlgorithm) else ())
    if kept := sorted(set(hyperparams) & set(fixed)):
        raise MlflowException.invalid_parameter_value(
            f"hyperparameter {kept[0]!r} cannot be changed: {model_uri} keeps what its networks and buffers were made for; leave it out."
        )
    with integrity.fetch_uri(model_uri) as folder:
        card = policy_loader.read_card(folder)
        if card["algorithm"] != f"{cls.__module__}.{cls.__name__}":
            raise MlflowException.invalid_parameter_value(
                f"{model_uri} is an agent of {card['algorithm']}, not of {algo}; give the algorithm that it was trained with."
            )
        model = _resumed(folder / AGENT_DIR, card, description, hyperparams)
        model_id = Model.load(str(folder)).model_id
    model.set_random_seed(seed)
    if isinstance(model, OffPolicyAlgorithm):
        _begin_again(model)
    return BaseAgent(model, model_id)


def _begin_again(model: OffPolicyAlgorithm) -> None:
    """Fill the empty replay buffer before learning from it, and make the noise fit the number of environments again."""
    model.learning_starts += model.num_timesteps
    if isinstance(model.action_noise, VectorizedActionNoise):
        model.action_noise = model.action_noise.base_noise


def base_env_spec(model_uri: str, description: str) -> str:
    """The environment that an agent was trained in, if it has the id of the described one, with its arguments and wrappers; else that one.

    Args:
        model_uri: As in ``load``.
        description: ``EnvSpec`` JSON.
    """
    from mlflow_sb3.flavor import policy_loader

    with integrity.fetch_uri(model_uri) as folder:
        own = policy_loader.read_card(folder)["environment"]
    return (
        json.dumps(own)
        if own is not None and own["id"] == json.loads(description)["id"]
        else description
    )


def _resumed(
    folder: Path, card: dict[str, Any], description: str, hyperparams: dict[str, Any]
) -> BaseAlgorithm:
    env = algorithms.vec_env(description, {"n_envs": hyperparams.get("n_envs", _n_envs(folder))})
    learned = sb3_policy.load_statistics(folder, card)
    try:
        changed = of_algorithm(hyperparams, env.action_space)
        return sb3_policy.load_algorithm(
            folder,
            card,
            env=env if learned is None else vec_normalize.wrap_vec_env(env, learned),
            **changed,
        )
    except algorithms.TRAINING_ERRORS as error:
        raise MlflowException.invalid_parameter_value(
            f"the agent cannot go on in this environment, or with these hyperparameters: {error}"
        ) from error


def _n_envs(folder: Path) -> int:
    """How many environments the agent learned in at once."""
    with zipfile.ZipFile(folder / AGENT_ZIP) as archive:
        return int(json.loads(archive.read("data"))["n_envs"])
