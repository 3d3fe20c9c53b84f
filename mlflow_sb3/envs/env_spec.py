"""What an agent acts in: a Gymnasium environment written down as JSON, and the seeds of its episodes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from mlflow.exceptions import MlflowException

from mlflow_sb3.envs.wrapper_config import ENV_ERRORS, Env, WrapperConfig, find_wrapper

_NOT_PLAYED = {"disable_env_checker", "nondeterministic", "reward_threshold", "vector_entry_point"}
"""Fields of an EnvSpec that change no episode."""
_MONITOR = "stable_baselines3.common.monitor:"


def make_env(env_id: str, kwargs: dict[str, Any] | None = None) -> Env:
    """Make the environment that Gymnasium registers under an id.

    Args:
        env_id: ``"CartPole-v1"``, or ``"module:EnvId-v0"`` to import ``module`` first.
        kwargs: For its constructor, and ``max_episode_steps`` for Gymnasium; -1 takes the limit away.

    Raises:
        MlflowException: Nothing of that id is registered, or it cannot be made, or does not take these arguments.
    """
    try:
        return gymnasium.make(env_id, **(kwargs or {}))
    except ENV_ERRORS as error:
        given = f" with {json.dumps(kwargs, default=str)}" if kwargs else ""
        raise MlflowException.invalid_parameter_value(
            f"environment {env_id!r} cannot be made{given}: {error} "
            "Give the id of a registered environment, or module:EnvId for one that a module registers"
            + (", and env_kwargs that its constructor takes." if kwargs else ".")
        ) from error


def compose_spec(
    env_id: str, *, kwargs: dict[str, Any] | None = None, wrappers: Sequence[WrapperConfig] = ()
) -> str:
    """Write down, as ``EnvSpec`` JSON, an environment with arguments and wrappers, after making it once.

    A wrapper need not record its own arguments, since they are given here.

    Args:
        env_id: As ``make`` takes it.
        kwargs: As ``make`` takes them.
        wrappers: The innermost first. Their modules are installed, or lie in the working folder.

    Raises:
        MlflowException: The environment cannot be made, a wrapper cannot wrap it, or Gymnasium cannot record them.
    """
    with make_env(env_id, kwargs) as bare:
        env, added = bare, []
        for wrapper in wrappers:
            found = find_wrapper(wrapper)
            env = found.wrap(env)
            added.append(
                WrapperSpec(found.entry_point.partition(":")[2], found.entry_point, found.kwargs)
            )
        spec = bare.spec
        if spec is not None:
            spec = replace(spec, additional_wrappers=(*_registered_wrappers(spec), *added))
    description = _write(spec)
    make_from_spec(description).close()
    return description


def _registered_wrappers(spec: EnvSpec) -> tuple[WrapperSpec, ...]:
    """The wrappers of a registration, with the arguments that a made environment may not have recorded.

    They begin with those that the entry point puts on by itself, if it puts on any, for so Gymnasium wants them.
    """
    registered = gymnasium.spec(spec.id).additional_wrappers
    return max(registered, spec.additional_wrappers, key=len)


def spec_to_json(spec: EnvSpec | None) -> str:
    """Write down, as ``EnvSpec`` JSON, how to make an environment again.

    SB3's ``Monitor`` and the render mode are left out: they watch, and change nothing.

    Args:
        spec: ``env.spec`` of an environment made by ``gymnasium.make``.

    Raises:
        MlflowException: The environment was made otherwise, of arguments that JSON cannot hold, or with a wrapper that
            does not record its arguments.
    """
    if spec is None:
        raise MlflowException.invalid_parameter_value(
            "the environment has no EnvSpec, so it cannot be made again elsewhere; register it and use gymnasium.make."
        )
    wrappers = tuple(
        wrapper
        for wrapper in spec.additional_wrappers
        if not wrapper.entry_point.startswith(_MONITOR)
    )
    if unrecorded := [wrapper.entry_point for wrapper in wrappers if wrapper.kwargs is None]:
        raise MlflowException.invalid_parameter_value(
            f"wrapper {unrecorded[0]} does not record its arguments, so the environment cannot be made again elsewhere; "
            "let it inherit from gymnasium.utils.RecordConstructorArgs."
        )
    return _write(replace(spec, additional_wrappers=wrappers))


def is_same_env(first: str, second: str) -> bool:
    """Whether two descriptions are of one environment; a field that only one version of Gymnasium knows has to be empty."""
    specs = json.loads(first), json.loads(second)
    keys = {*specs[0], *specs[1]} - _NOT_PLAYED
    return all(
        specs[0].get(key) == specs[1].get(key) or not (specs[0].get(key) or specs[1].get(key))
        for key in keys
    )


def list_wrappers(description: str) -> list[dict[str, Any]]:
    """The wrappers of a described environment, in the notation of ``compose``."""
    return [
        {wrapper["entry_point"]: wrapper["kwargs"]}
        for wrapper in json.loads(description)["additional_wrappers"]
    ]


def _write(spec: EnvSpec | None) -> str:
    """The JSON of a spec, without the render mode."""
    if spec is None:
        raise MlflowException.invalid_parameter_value(
            "the environment has no EnvSpec, so it cannot be made again elsewhere; register it and use gymnasium.make."
        )
    kwargs = {key: value for key, value in spec.kwargs.items() if key != "render_mode"}
    try:
        return replace(spec, kwargs=kwargs).to_json()
    except (TypeError, ValueError) as error:
        raise MlflowException.invalid_parameter_value(
            f"environment {spec.id} cannot be written down: {error} "
            "Register it by entry point 'module:Class' and with arguments that JSON can hold."
        ) from error


def make_from_spec(description: str, *, render_mode: str | None = None) -> Env:
    """Make the environment that ``describe`` wrote down.

    The passive checker stays off: it warns a developer of an environment, and costs time at every episode.

    Args:
        description: ``EnvSpec`` JSON.
        render_mode: ``"rgb_array"`` to record a video.

    Raises:
        MlflowException: The package of the environment is missing here, or has changed.
    """
    try:
        spec = EnvSpec.from_json(description)
    except (ValueError, KeyError, TypeError) as error:
        raise MlflowException.invalid_parameter_value(
            f"{description!r} is no EnvSpec JSON; give what env.spec.to_json() returns."
        ) from error
    modes: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    try:
        return gymnasium.make(spec, disable_env_checker=True, **modes)
    except ENV_ERRORS as error:
        raise MlflowException.invalid_parameter_value(
            f"environment {spec.id} ({spec.entry_point}) cannot be made here: {error}. "
            "Install the packages that define it and its wrappers, in the versions that the agent was trained with."
        ) from error
