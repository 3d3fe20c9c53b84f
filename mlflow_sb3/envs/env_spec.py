"""Make Gymnasium environments from ``EnvSpec`` JSON, and describe environments as such JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from gymnasium.error import DependencyNotInstalled
from mlflow.exceptions import MlflowException

from mlflow_sb3.envs import Env, entry_points, env_packages, vec_env_factory
from mlflow_sb3.envs.wrapper_config import ENV_ERRORS, WrapperConfig, format_cause, import_wrapper

_IGNORED_FIELDS = {
    "disable_env_checker",
    "nondeterministic",
    "reward_threshold",
    "vector_entry_point",
}
"""Fields of an ``EnvSpec`` that do not change an episode."""
_MONITOR_MODULE = "stable_baselines3.common.monitor:"


def make_env(env_id: str, kwargs: dict[str, Any] | None = None) -> Env:
    """Make an environment with ``gymnasium.make``.

    Args:
        env_id: ``"CartPole-v1"``, ``"module:EnvId-v0"`` to import ``module`` first, or
            ``"module:function"`` (see ``vec_env_factory``).
        kwargs: Arguments of the environment's constructor, and ``max_episode_steps`` for Gymnasium.
            ``max_episode_steps=-1`` removes the time limit.

    Raises:
        MlflowException: The module cannot be imported, the id is not registered, the package of the
            environment is not installed, or the environment rejects the arguments.
    """
    if vec_env_factory.is_factory(env_id):
        return gymnasium.make(vec_env_factory.build_spec(env_id, kwargs or {}))
    try:
        env_packages.register_env(env_id)
        return gymnasium.make(env_id, **(kwargs or {}))
    except DependencyNotInstalled as error:
        raise MlflowException.invalid_parameter_value(
            f"environment {env_id!r} needs a package that is not installed. "
            f"Install it: {env_packages.find_pip_command(error)}"
        ) from error
    except ENV_ERRORS as error:
        arguments = f" with {json.dumps(kwargs, default=str)}" if kwargs else ""
        remedy = (
            "Use the id of a registered environment, 'module:EnvId' to import a module first, or "
            "'module:function' for a function that returns a VecEnv."
        )
        if kwargs:
            remedy += " Use only env_kwargs that the constructor of the environment accepts."
        raise MlflowException.invalid_parameter_value(
            f"environment {env_id!r} cannot be made{arguments}: {format_cause(error)} {remedy}"
        ) from error


def make_from_spec(spec_json: str, *, render_mode: str | None = None) -> Env:
    """Make an environment from its ``EnvSpec`` JSON.

    The JSON may come from another user. See ``entry_points.check_spec`` for what it may name.
    Gymnasium's passive checker is off, because it takes time in every episode and only helps the
    developer of an environment.

    Args:
        spec_json: JSON of an ``EnvSpec``.
        render_mode: ``"rgb_array"`` to record a video.

    Raises:
        MlflowException: The JSON is invalid, names something else than environments and wrappers of
            trusted modules, or the package of the environment is missing or has changed.
    """
    try:
        spec = EnvSpec.from_json(spec_json)
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        raise MlflowException.invalid_parameter_value(
            f"{spec_json!r} is no EnvSpec JSON. Use the result of env.spec.to_json()."
        ) from error
    entry_points.check_spec(spec)
    return _make(spec, **({} if render_mode is None else {"render_mode": render_mode}))


def _make(spec: EnvSpec, **kwargs: Any) -> Env:
    try:
        return gymnasium.make(spec, disable_env_checker=True, **kwargs)
    except ENV_ERRORS as error:
        raise MlflowException.invalid_parameter_value(
            f"environment {spec.id} ({spec.entry_point}) cannot be made here: "
            f"{format_cause(error)} Install the packages of the environment and its wrappers in "
            "the versions that the training used."
        ) from error


def compose_spec(
    env_id: str, *, kwargs: dict[str, Any] | None = None, wrappers: Sequence[WrapperConfig] = ()
) -> str:
    """Return the ``EnvSpec`` JSON of a registered environment with arguments and wrappers.

    The environment is made twice: to wrap it, and to check that the JSON suffices to make it again.
    Unlike ``spec_to_json``, this also works for wrappers that do not record their arguments.

    Args:
        env_id: See ``make_env``.
        kwargs: See ``make_env``.
        wrappers: Wrapper configurations, the innermost first. Their modules must be installed or
            lie in the working directory.

    Raises:
        MlflowException: The environment cannot be made, a wrapper cannot be imported or cannot wrap
            the environment, or Gymnasium cannot convert the spec to JSON.
    """
    if wrappers and vec_env_factory.is_factory(env_id):
        raise MlflowException.invalid_parameter_value(
            f"The environments of the function {env_id} cannot have the wrappers "
            f"{json.dumps(list(wrappers))}. Apply them in the function."
        )
    with make_env(env_id, kwargs) as bare_env:
        env, wrapper_specs = bare_env, []
        for config in wrappers:
            wrapper = import_wrapper(config)
            env = wrapper.wrap(env)
            name = wrapper.entry_point.partition(":")[2]
            wrapper_specs.append(WrapperSpec(name, wrapper.entry_point, wrapper.kwargs))
        spec = _require_spec(bare_env.spec)
    spec_json = _to_json(
        replace(spec, additional_wrappers=(*_get_inner_wrappers(spec), *wrapper_specs))
    )
    _make(EnvSpec.from_json(spec_json)).close()
    return spec_json


def spec_to_json(spec: EnvSpec | None) -> str:
    """Return the JSON of an ``EnvSpec`` without SB3's ``Monitor`` and without the render mode.

    ``Monitor`` and the render mode do not change an episode.

    Args:
        spec: ``env.spec`` of an environment made by ``gymnasium.make``.

    Raises:
        MlflowException: There is no spec, an argument cannot be converted to JSON, or a wrapper
            does not record its arguments.
    """
    spec = _require_spec(spec)
    wrappers = tuple(
        wrapper
        for wrapper in spec.additional_wrappers
        if not wrapper.entry_point.startswith(_MONITOR_MODULE)
    )
    for wrapper in wrappers:
        if wrapper.kwargs is None:
            raise MlflowException.invalid_parameter_value(
                f"wrapper {wrapper.entry_point} does not record its arguments, so the environment "
                "cannot be made again. Derive the wrapper from "
                "gymnasium.utils.RecordConstructorArgs too."
            )
    return _to_json(replace(spec, additional_wrappers=wrappers))


def is_same_env(first: str, second: str) -> bool:
    """Return whether two ``EnvSpec`` JSONs describe the same environment.

    Fields that do not change an episode are ignored. Versions of Gymnasium write different fields,
    so an empty field equals a missing field.
    """
    first_spec, second_spec = json.loads(first), json.loads(second)
    keys = {*first_spec, *second_spec} - _IGNORED_FIELDS
    return all((first_spec.get(key) or None) == (second_spec.get(key) or None) for key in keys)


def list_wrappers(spec_json: str) -> list[dict[str, Any]]:
    """Return the wrappers of an ``EnvSpec`` JSON as wrapper configurations."""
    return [
        {wrapper["entry_point"]: wrapper["kwargs"]}
        for wrapper in json.loads(spec_json)["additional_wrappers"]
    ]


def _get_inner_wrappers(spec: EnvSpec) -> tuple[WrapperSpec, ...]:
    """Return the wrappers that the environment already has when ``gymnasium.make`` returns it.

    The registration lists these wrappers with their arguments. ``env.spec`` also lists wrappers
    that the entry point adds, but it lacks the arguments of a wrapper that does not record them.
    Therefore, ``env.spec`` is used only if its list is longer.
    """
    registered = gymnasium.registry.get(spec.id)
    inner = () if registered is None else registered.additional_wrappers
    return max(inner, spec.additional_wrappers, key=len)


def _require_spec(spec: EnvSpec | None) -> EnvSpec:
    if spec is None:
        raise MlflowException.invalid_parameter_value(
            "the environment has no EnvSpec, so it cannot be made again. "
            "Register it with gymnasium.register, and make it with gymnasium.make."
        )
    return spec


def _to_json(spec: EnvSpec) -> str:
    kwargs = {key: value for key, value in spec.kwargs.items() if key != "render_mode"}
    try:
        return replace(spec, kwargs=kwargs).to_json()
    except (TypeError, ValueError) as error:
        raise MlflowException.invalid_parameter_value(
            f"environment {spec.id} cannot be converted to JSON: {format_cause(error)} Register it "
            "with an entry point 'module:Class', and use arguments that JSON can represent."
        ) from error
