"""Load a logged agent to train it further."""

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

from mlflow_sb3.algorithms import algorithms, builder, hyperparam_check
from mlflow_sb3.algorithms.hyperparams import to_algorithm_kwargs
from mlflow_sb3.flavor import policy_loader, sb3_policy, vec_normalize
from mlflow_sb3.inference import agent_files
from mlflow_sb3.inference.agent_files import AGENT_DIR, AGENT_ZIP, AgentInfo
from mlflow_sb3.registry import integrity
from mlflow_sb3.tracking.file_trust import FileTrust

FROM_MODEL_TAG = "mlflow_sb3.from_model"
"""Tag of a training run: id of the logged model that the run fine-tunes."""
_FIXED_HYPERPARAMS = ("normalize", "policy", "policy_kwargs", "use_sde")
"""Hyperparameters that decide the networks or the statistics of the agent."""
_FIXED_OFF_POLICY_HYPERPARAMS = (
    "ent_coef",
    "n_steps",
    "replay_buffer_class",
    "replay_buffer_kwargs",
)
"""Fixed hyperparameters of off-policy algorithms.

``ent_coef`` decides whether the agent has an optimizer of the entropy coefficient. The others
decide the replay buffer.
"""


@dataclass(frozen=True)
class BaseAgent:
    """Agent to train further, in its ``VecEnv``."""

    model: BaseAlgorithm
    model_id: str | None
    """Id of the logged model."""


def log_lineage(run_id: str, model_id: str) -> None:
    """Record in a training run which logged model it fine-tunes, as an input and as a tag."""
    client = MlflowClient()
    client.log_inputs(run_id, models=[LoggedModelInput(model_id)])
    client.set_tag(run_id, FROM_MODEL_TAG, model_id)


def load_base_agent(
    model_uri: str,
    algo: str,
    env_spec_json: str,
    hyperparams: dict[str, Any],
    *,
    seed: int,
    trust: FileTrust,
) -> BaseAgent:
    """Load an agent with its networks, its optimizer and its VecNormalize statistics.

    This unpickles SB3's file. A logged model has no replay buffer. The agent therefore takes
    ``learning_starts`` steps to fill a new buffer before it learns.

    Args:
        model_uri: As in ``mlflow_sb3.load_model``.
        algo: Algorithm that the agent must have.
        env_spec_json: Environment to learn in, as ``EnvSpec`` JSON. It may differ from the
            previous environment, but not in its spaces.
        hyperparams: Hyperparameters to change; see ``builder.build_algorithm``.
        seed: Seed for SB3.
        trust: Whether the model may be unpickled. If it has a public key, that key must have signed
            the model.

    Raises:
        MlflowException: The model may not be unpickled, the agent has another algorithm or other
            spaces, or a hyperparameter cannot be changed.
    """
    agent_files.check_unpickling_allowed(
        f"Fine-tuning {model_uri}", is_trusted=trust.allow_pickle or bool(trust.public_key)
    )
    hyperparam_check.check_hyperparams(algo, hyperparams)
    _check_can_change(model_uri, algo, hyperparams)
    with integrity.fetch_uri(model_uri, public_key=trust.public_key or None) as folder:
        agent_info = policy_loader.read_agent_info(folder)
        _check_algorithm(model_uri, algo, agent_info)
        model = _load_model(folder / AGENT_DIR, agent_info, env_spec_json, hyperparams, seed)
        model_id = Model.load(str(folder)).model_id
    model.set_random_seed(seed)
    if isinstance(model, OffPolicyAlgorithm):
        _prepare_off_policy(model)
    return BaseAgent(model, model_id)


def get_base_env_spec(model_uri: str, env_spec_json: str, *, trust: FileTrust) -> str:
    """Return the training environment of an agent, if it has the id of the requested environment.

    Args:
        model_uri: As in ``mlflow_sb3.load_model``.
        env_spec_json: Requested environment as ``EnvSpec`` JSON.
        trust: As in ``load_base_agent``.

    Returns:
        The agent's environment with its arguments and wrappers, as ``EnvSpec`` JSON. If the id of
        that environment is unknown or differs, ``env_spec_json``.
    """
    with integrity.fetch_uri(model_uri, public_key=trust.public_key or None) as folder:
        agent_env = policy_loader.read_agent_info(folder).environment
    if agent_env is None or agent_env["id"] != json.loads(env_spec_json)["id"]:
        return env_spec_json
    return json.dumps(agent_env)


def _check_can_change(model_uri: str, algo: str, hyperparams: dict[str, Any]) -> None:
    is_off_policy = issubclass(algorithms.get_algorithm_class(algo), OffPolicyAlgorithm)
    fixed = _FIXED_HYPERPARAMS + (_FIXED_OFF_POLICY_HYPERPARAMS if is_off_policy else ())
    if conflicts := sorted(set(hyperparams) & set(fixed)):
        raise MlflowException.invalid_parameter_value(
            f"Hyperparameter {conflicts[0]!r} cannot be changed, because the networks, "
            f"optimizers, buffers or statistics of {model_uri} depend on it. Remove it."
        )


def _check_algorithm(model_uri: str, algo: str, agent_info: AgentInfo) -> None:
    algorithm_class = algorithms.get_algorithm_class(algo)
    if agent_info.algorithm != f"{algorithm_class.__module__}.{algorithm_class.__name__}":
        raise MlflowException.invalid_parameter_value(
            f"{model_uri} was trained with {agent_info.algorithm}, not with {algo}. "
            "Use the algorithm that it was trained with."
        )


def _load_model(
    folder: Path, agent_info: AgentInfo, env_spec_json: str, hyperparams: dict[str, Any], seed: int
) -> BaseAlgorithm:
    """Load SB3's algorithm with new environments, and with the VecNormalize statistics."""
    n_envs = hyperparams.get("n_envs", _read_n_envs(folder))
    vec_env = builder.build_vec_env(env_spec_json, {"n_envs": n_envs}, seed=seed)
    statistics = sb3_policy.load_statistics(folder, agent_info)
    if statistics is not None:
        vec_env = vec_normalize.wrap_vec_env(vec_env, statistics)
    try:
        kwargs = to_algorithm_kwargs(hyperparams, vec_env.action_space)
        return sb3_policy.load_algorithm(folder, agent_info, env=vec_env, **kwargs)
    except algorithms.TRAINING_ERRORS as error:
        raise MlflowException.invalid_parameter_value(
            f"The agent cannot be trained in this environment with these hyperparameters: {error}"
        ) from error


def _read_n_envs(folder: Path) -> int:
    """Return the number of environments in the ``VecEnv`` that the agent was trained in."""
    with zipfile.ZipFile(folder / AGENT_ZIP) as archive:
        return int(json.loads(archive.read("data"))["n_envs"])


def _prepare_off_policy(model: OffPolicyAlgorithm) -> None:
    """Let the model fill its empty replay buffer before it learns."""
    model.learning_starts += model.num_timesteps
    # SB3 wraps the noise again in learn(), for the new number of environments.
    if isinstance(model.action_noise, VectorizedActionNoise):
        model.action_noise = model.action_noise.base_noise
