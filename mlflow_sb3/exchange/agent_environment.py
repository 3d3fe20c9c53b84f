"""Describe the environment of a found agent as ``EnvSpec`` JSON."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from mlflow.exceptions import MlflowException

from mlflow_sb3.algorithms.zoo_presets import Preset
from mlflow_sb3.envs import entry_points, env_spec, wrapper_config
from mlflow_sb3.envs.wrapper_config import ENV_ERRORS, WrapperConfig, format_cause
from mlflow_sb3.exchange.agent_folder import CONFIG_YAML, AgentFolder

_ENV_KEYS = ("env_kwargs", "env_wrapper", "frame_stack", "normalize")
"""Keys of ``config.yml`` that describe the environments."""


def describe_environment(
    found: AgentFolder,
    *,
    env_kwargs: dict[str, Any] | None = None,
    wrappers: Sequence[WrapperConfig] = (),
) -> str:
    """Return the environment of an agent as ``EnvSpec`` JSON.

    The arguments and the wrappers of the environment come from the files, and from the caller. The
    modules that the files name must be trusted; see ``entry_points.check_module``.

    Args:
        found: The files of the agent.
        env_kwargs: Arguments of the environment. They override those of the files.
        wrappers: Wrappers to add around those of the files, the innermost first.

    Raises:
        MlflowException: The environment cannot be made, a module is not trusted, or rl_zoo3 put
            wrappers around the environments that a logged model cannot have.
    """
    settings = Preset(CONFIG_YAML).override(
        {key: found.config[key] for key in _ENV_KEYS if key in found.config}
    )
    _check_vec_wrappers(found, settings)
    for wrapper in settings.env_wrappers:
        entry_points.check_wrapper(wrapper_config.get_entry_point(wrapper))
    if ":" in found.env_id:
        entry_points.check_module(found.env_id)
    for package in found.args.get("gym_packages") or ():
        _import_package(package)
    own_kwargs = found.args.get("env_kwargs")
    if own_kwargs is None:
        own_kwargs = settings.hyperparams.get("env_kwargs")
    return env_spec.compose_spec(
        found.env_id,
        kwargs={**(own_kwargs or {}), **(env_kwargs or {})},
        wrappers=settings.add_wrappers(list(wrappers)),
    )


def _check_vec_wrappers(found: AgentFolder, settings: Preset) -> None:
    if "vec_env_wrapper" in found.config:
        raise MlflowException.invalid_parameter_value(
            f"The agent was trained with vec_env_wrapper={found.config['vec_env_wrapper']!r}. An "
            "EnvSpec cannot record a wrapper of a whole VecEnv. Train the agent with env_wrapper."
        )
    normalize = settings.hyperparams.get("normalize")
    has_norm_obs = normalize.get("norm_obs", True) if isinstance(normalize, dict) else normalize
    if settings.frame_stack and has_norm_obs:
        raise MlflowException.invalid_parameter_value(
            f"The agent was trained with frame_stack={settings.frame_stack} and "
            f"normalize={found.config['normalize']!r}. rl_zoo3 normalizes each frame before it "
            "stacks them, but a logged model can only normalize the stack. "
            "Train the agent with only one of them."
        )


def _import_package(package: str) -> None:
    """Import a module that registers environments, if it is trusted."""
    entry_points.check_module(package)
    try:
        importlib.import_module(package)
    except (*ENV_ERRORS, SyntaxError, SystemExit) as error:
        raise MlflowException.invalid_parameter_value(
            f"The module {package}, which registers the environment, cannot be imported: "
            f"{format_cause(error)} Install its package."
        ) from error
