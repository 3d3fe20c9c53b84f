"""Load a found agent as an SB3 algorithm, with its environment and its statistics."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile

from mlflow.exceptions import MlflowException
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from mlflow_sb3.algorithms import algorithms, builder
from mlflow_sb3.envs.wrapper_config import format_cause
from mlflow_sb3.exchange.agent_folder import AgentFolder
from mlflow_sb3.flavor import sb3_internals
from mlflow_sb3.inference import agent_files

_LOAD_ERRORS = (*algorithms.TRAINING_ERRORS, EOFError, OSError, pickle.UnpicklingError)


def check_consent(found: AgentFolder, *, allow_pickle: bool) -> None:
    """Check that the files of an agent may be unpickled.

    Raises:
        MlflowException: They may not be unpickled. The message names each file.
    """
    files = f"{found.archive} (the agent)"
    if found.statistics is not None:
        files += f" and {found.statistics} (the statistics of VecNormalize)"
    agent_files.check_unpickling_allowed("The import", is_trusted=allow_pickle, files=files)


def load_agent(found: AgentFolder, env_spec_json: str) -> BaseAlgorithm:
    """Load an agent. This unpickles its files.

    Args:
        found: The files of the agent.
        env_spec_json: Environment of the agent, as ``EnvSpec`` JSON.

    Returns:
        The algorithm, which holds as many environments as in its training, with ``VecNormalize``
        if the agent has statistics.

    Raises:
        MlflowException: A file cannot be loaded, or the agent does not fit the algorithm or the
            environment.
    """
    algorithm = algorithms.get_algorithm_class(found.algo)
    vec_env = builder.build_vec_env(env_spec_json, {"n_envs": _read_n_envs(found)})
    if found.statistics is not None:
        vec_env = _load_statistics(found, vec_env)
    try:
        return _load_algorithm(algorithm, found, sb3_internals.wrap_env(vec_env))
    except _LOAD_ERRORS as error:
        vec_env.close()
        raise MlflowException.invalid_parameter_value(
            f"{found.archive} cannot be loaded as {found.algo} for {found.env_id}: "
            f"{format_cause(error)} Pass the algo, the env, the env_kwargs and the wrappers that "
            "the agent was trained with."
        ) from error


def _read_n_envs(found: AgentFolder) -> int:
    """Read the number of environments in the file of an agent, without unpickling."""
    try:
        with zipfile.ZipFile(found.open_archive()) as archive:
            return int(json.loads(archive.read("data"))["n_envs"])
    except (LookupError, OSError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise MlflowException.invalid_parameter_value(
            f"{found.archive} is no agent of SB3: {format_cause(error)} "
            "Pass a zip file that SB3's save has written."
        ) from error


def _load_statistics(found: AgentFolder, vec_env: VecEnv) -> VecNormalize:
    try:
        return VecNormalize.load(str(found.statistics), vec_env)
    except _LOAD_ERRORS as error:
        vec_env.close()
        raise MlflowException.invalid_parameter_value(
            f"{found.statistics} cannot be loaded for {found.env_id}: {format_cause(error)} "
            "Pass the file that belongs to the agent and to its environment."
        ) from error


def _load_algorithm(
    algorithm: type[BaseAlgorithm], found: AgentFolder, vec_env: VecEnv
) -> BaseAlgorithm:
    """Load the algorithm, also if an older version of the environment had other limits.

    The limits of observations do not matter to a policy, except for images.
    """
    try:
        return algorithm.load(found.open_archive(), env=vec_env, device="cpu")
    except (ImportError, KeyError, ValueError) as error:
        spaces = {"observation_space": vec_env.observation_space}
        if not isinstance(error, ValueError):  # the spaces were saved by Gym, not by Gymnasium
            spaces["action_space"] = vec_env.action_space
        model = algorithm.load(
            found.open_archive(), env=vec_env, device="cpu", custom_objects=spaces
        )
        warnings.warn(
            f"The agent was trained in another version of {found.env_id}: {format_cause(error)} "
            "It is imported for the environment of this machine. Evaluate it before you use it.",
            stacklevel=4,
        )
        return model
