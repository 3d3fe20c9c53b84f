"""Describe a logged agent in the notation of rl_zoo3: ``args.yml`` and ``config.yml``."""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import dataclass
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from mlflow.exceptions import MlflowException

from mlflow_sb3.algorithms import algorithms, hyperparam_check
from mlflow_sb3.envs import env_packages, spaces, vec_env_factory
from mlflow_sb3.flavor.vec_normalize import Statistics
from mlflow_sb3.inference.agent_files import AgentInfo

_FRAME_STACK = "mlflow_sb3.wrappers:FrameStack"
_ZERO_START = "mlflow_sb3.wrappers:ZeroStart"
_HER_MODULE = "stable_baselines3.her.her_replay_buffer"


@dataclass(frozen=True)
class ZooConfig:
    """An agent in the notation of rl_zoo3."""

    algo: str
    """Key of ``ALGORITHMS``."""
    env_id: str
    args: dict[str, Any]
    """Content of ``args.yml``."""
    config: dict[str, Any]
    """Content of ``config.yml``."""

    @property
    def env_name(self) -> str:
        """The environment in file names: ``ALE-Pong-v5`` for ``ALE/Pong-v5``."""
        return self.env_id.rpartition(":")[2].replace("/", "-")

    @property
    def env_kwargs(self) -> dict[str, Any]:
        """Arguments of the environment."""
        return self.args["env_kwargs"] or {}


def build_config(info: AgentInfo, archive: bytes, statistics: Statistics | None) -> ZooConfig:
    """Describe an agent.

    Nothing is unpickled. Hyperparameters that SB3 pickles, such as schedules, are left out.

    Args:
        info: Description of the agent.
        archive: SB3's zip file of the agent.
        statistics: ``VecNormalize`` statistics of the agent, if it has any.

    Raises:
        MlflowException: The algorithm is unknown, or rl_zoo3 cannot make the environment.
    """
    algo = find_algo(info)
    spec = _read_spec(info)
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        data = json.loads(file.read("data"))
    defaults = hyperparam_check.list_defaults(algo)
    config = {key: data[key] for key in sorted(defaults) if _is_plain(data.get(key))}
    config["policy"] = algorithms.get_default_policy(
        algo, spaces.rebuild_space(info.observation_space)
    )
    config["n_timesteps"] = data["num_timesteps"]
    if _HER_MODULE in str(data.get("replay_buffer_class")):
        config["replay_buffer_class"] = "HerReplayBuffer"
    if statistics is not None:
        names = ("norm_obs", "norm_reward")
        values = ", ".join(f"{name}={bool(statistics[name])}" for name in names)
        config["normalize"] = f"dict({values})"
    config |= _describe_wrappers(info, spec, is_normalized=statistics is not None)
    args = {
        "algo": algo,
        "env": spec.id,
        "env_kwargs": _list_env_kwargs(spec) or None,
        "gym_packages": _list_packages(spec),
        "n_timesteps": data["num_timesteps"],
        "seed": data.get("seed"),
    }
    return ZooConfig(algo, spec.id, args, config)


def _is_plain(value: Any) -> bool:
    """Return whether a value is a number or a word. rl_zoo3 evaluates other text as Python."""
    if isinstance(value, str):
        return re.fullmatch(r"[\w.]+", value) is not None
    return isinstance(value, (bool, int, float))


def find_algo(info: AgentInfo) -> str:
    """Return the key of ``ALGORITHMS`` for the class of an agent.

    Raises:
        MlflowException: It is another class.
    """
    for algo in algorithms.ALGORITHMS:
        algorithm = algorithms.get_algorithm_class(algo)
        if info.algorithm == f"{algorithm.__module__}.{algorithm.__name__}":
            return algo
    raise MlflowException.invalid_parameter_value(
        f"The agent has the algorithm {info.algorithm}, which rl_zoo3 does not know. "
        f"Only agents of {', '.join(algorithms.ALGORITHMS)} can be exported."
    )


def _read_spec(info: AgentInfo) -> EnvSpec:
    description = info.env_spec_json
    if description is None or vec_env_factory.is_vec_env(description):
        environment = "none" if info.environment is None else info.environment["id"]
        raise MlflowException.invalid_parameter_value(
            f"The environment of the agent is {environment}, which rl_zoo3 cannot make. Log the "
            "agent with mlflow_sb3.log_model(..., environment=<EnvSpec JSON>)."
        )
    return EnvSpec.from_json(description)


def _describe_wrappers(info: AgentInfo, spec: EnvSpec, *, is_normalized: bool) -> dict[str, Any]:
    """Return ``env_wrapper`` and ``frame_stack``, each only if the environment has it.

    rl_zoo3 normalizes each frame before it stacks them, and the agent normalizes the stack. So the
    stack of a normalized agent is a wrapper of the environment.
    """
    wrappers = _list_own_wrappers(spec)
    starts = (
        spaces.get_space_start(spaces.rebuild_space(space))
        for space in (info.observation_space, info.action_space)
    )
    is_shifted = any(start is not None for start in starts)
    described: dict[str, Any] = {}
    if wrappers and _is_zoo_stack(wrappers[-1]) and not is_normalized and not is_shifted:
        described["frame_stack"] = (wrappers.pop().kwargs or {})["n_stack"]
    names = [{_to_dotted(wrapper.entry_point): wrapper.kwargs or {}} for wrapper in wrappers]
    if is_shifted:
        names.append({_to_dotted(_ZERO_START): {}})
    return described | ({"env_wrapper": names} if names else {})


def _list_own_wrappers(spec: EnvSpec) -> list[WrapperSpec]:
    """Return the wrappers that ``gymnasium.make`` does not apply by itself."""
    registered = _find_registered(spec)
    inner = () if registered is None else registered.additional_wrappers
    is_inner = spec.additional_wrappers[: len(inner)] == inner
    return list(spec.additional_wrappers[len(inner) if is_inner else 0 :])


def _is_zoo_stack(wrapper: WrapperSpec) -> bool:
    """Return whether a wrapper stacks frames as ``VecFrameStack(env, n_stack)`` does."""
    order = (wrapper.kwargs or {}).get("channels_order")
    return wrapper.entry_point == _FRAME_STACK and order is None


def _to_dotted(entry_point: str) -> str:
    return entry_point.replace(":", ".")


def _list_env_kwargs(spec: EnvSpec) -> dict[str, Any]:
    """Return the arguments of ``gymnasium.make`` that differ from the registration."""
    registered = _find_registered(spec)
    kwargs = dict(spec.kwargs)
    if registered is None:
        return kwargs
    if spec.max_episode_steps != registered.max_episode_steps:
        # Gymnasium removes the time limit for -1, and ignores None.
        limit = spec.max_episode_steps
        kwargs["max_episode_steps"] = -1 if limit is None else limit
    return {
        key: value
        for key, value in kwargs.items()
        if key not in registered.kwargs or registered.kwargs[key] != value
    }


def _list_packages(spec: EnvSpec) -> list[str]:
    """Return the module that registers the environment, if it is not one of Gymnasium."""
    module = str(spec.entry_point).partition(":")[0]
    return [] if module.startswith("gymnasium.") else [module]


def _find_registered(spec: EnvSpec) -> EnvSpec | None:
    env_packages.register_env(spec.id)
    return gymnasium.registry.get(spec.id)
