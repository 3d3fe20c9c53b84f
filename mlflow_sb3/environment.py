"""What an agent acts in: a Gymnasium environment written down as JSON, and the seeds of its episodes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, get_args

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from mlflow.exceptions import MlflowException

Env = gymnasium.Env[Any, Any]
Stream = Literal["learning", "choice", "gate", "evaluation"]
_UNMAKEABLE = (gymnasium.error.Error, ImportError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""What the constructors of environments raise."""
_MONITOR = "stable_baselines3.common.monitor:"


def make(env_id: str) -> Env:
    """Make the environment that Gymnasium registers under an id.

    Args:
        env_id: ``"CartPole-v1"``, or ``"module:EnvId-v0"`` to import ``module`` first.

    Raises:
        MlflowException: Nothing of that id is registered, or it cannot be made.
    """
    try:
        return gymnasium.make(env_id)
    except _UNMAKEABLE as error:
        raise MlflowException.invalid_parameter_value(
            f"environment {env_id!r} cannot be made: {error} "
            "Give the id of a registered environment, or module:EnvId for one that a module registers."
        ) from error


def describe(spec: EnvSpec | None) -> str:
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
    wrappers = tuple(wrapper for wrapper in spec.additional_wrappers if not wrapper.entry_point.startswith(_MONITOR))
    if unrecorded := [wrapper.entry_point for wrapper in wrappers if wrapper.kwargs is None]:
        raise MlflowException.invalid_parameter_value(
            f"wrapper {unrecorded[0]} does not record its arguments, so the environment cannot be made again elsewhere; "
            "let it inherit from gymnasium.utils.RecordConstructorArgs."
        )
    kwargs = {key: value for key, value in spec.kwargs.items() if key != "render_mode"}
    try:
        return replace(spec, additional_wrappers=wrappers, kwargs=kwargs).to_json()
    except (TypeError, ValueError) as error:
        raise MlflowException.invalid_parameter_value(
            f"environment {spec.id} cannot be written down: {error} "
            "Register it by entry point 'module:Class' and with arguments that JSON can hold."
        ) from error


def remake(description: str, *, render_mode: str | None = None) -> Env:
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
    except _UNMAKEABLE as error:
        raise MlflowException.invalid_parameter_value(
            f"environment {spec.id} ({spec.entry_point}) cannot be made here: {error}. "
            "Install the package that defines it, in the version that the agent was trained with."
        ) from error


def seeds(seed: int, stream: Stream, count: int, *, start: int = 0) -> list[int]:
    """Seeds of the episodes ``start`` to ``start + count`` of a stream.

    One seed gives four independent streams, so that no episode that chose an agent judges it.
    Streams are the children of ``numpy.random.SeedSequence(seed)``. A longer list begins with the shorter one.

    Returns:
        ``count`` integers in [0, 2**31), which every environment takes.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(get_args(Stream).index(stream),))
    return [int(word) >> 1 for word in sequence.generate_state(start + count)[start:]]
