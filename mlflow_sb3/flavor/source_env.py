"""Find the environment that an agent was trained in, and its spaces."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
from gymnasium import Space, spaces
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from mlflow.exceptions import MlflowException
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import (
    VecCheckNan,
    VecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
    VecVideoRecorder,
)
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

from mlflow_sb3.envs import env_spec
from mlflow_sb3.envs.spaces import is_compatible
from mlflow_sb3.flavor import sb3_internals
from mlflow_sb3.flavor.factory_vec_env import FactoryVecEnv

_PASSIVE = (VecMonitor, VecCheckNan, VecVideoRecorder)
"""Wrappers that change no observation, action or reward."""
_ORDER = (VecFrameStack, VecNormalize, VecTransposeImage)
"""The only order of wrappers, from the inside, that an exported agent can reproduce."""


@dataclass(frozen=True)
class SourceEnv:
    """The training environment of an agent.

    The spaces include ``VecFrameStack``, but not ``VecNormalize`` and ``VecTransposeImage``. A
    model without an environment has only the spaces of its policy.
    """

    description: str | None
    """``EnvSpec`` JSON. None if the environment cannot be made from an ``EnvSpec``."""
    observation_space: Space[Any]
    action_space: Space[Any]


def check_algorithm(model: Any) -> None:
    """Check that a model is an SB3 algorithm.

    Raises:
        MlflowException: The model is not an SB3 algorithm, or its policy is not one of PyTorch.
    """
    if not isinstance(model, BaseAlgorithm):
        raise MlflowException.invalid_parameter_value(
            f"sb3_model is a {type(model).__module__}.{type(model).__name__}. "
            "Pass an algorithm of stable_baselines3 or sb3_contrib."
        )
    if not has_torch_weights(model):
        raise MlflowException.invalid_parameter_value(
            f"The policy of {type(model).__module__}.{type(model).__name__} has no weights of "
            "PyTorch, so it cannot be exported. Use an algorithm of stable_baselines3 or "
            "sb3_contrib."
        )


def has_torch_weights(model: BaseAlgorithm) -> bool:
    """Return whether PyTorch holds the weights of a policy. JAX holds those of SBX."""
    return next(model.policy.parameters(), None) is not None


def warn_without_statistics(model: BaseAlgorithm) -> None:
    """Warn if a model has learned in a ``VecNormalize``, but was loaded without it."""
    if sb3_internals.has_learned_normalized(model) and model.get_vec_normalize_env() is None:
        warnings.warn(
            "The model has learned in a VecNormalize, but has no statistics, so it will act on "
            "observations that are not normalized. Load it with its environment: "
            f"{type(model).__name__}.load(path, env=VecNormalize.load(statistics_path, vec_env)). "
            "If only rewards were normalized, ignore this warning.",
            stacklevel=4,
        )


def find_source_env(model: BaseAlgorithm, description: str | None = None) -> SourceEnv:
    """Return the training environment of a model.

    The ``description`` of the result is None if the environment of the model has no ``EnvSpec``, or
    one that JSON cannot represent. It is also None, with a warning, if no environment can be made
    from the ``EnvSpec`` of the model.

    Args:
        model: SB3 algorithm.
        description: ``EnvSpec`` JSON. By default, the environment that the model holds.

    Raises:
        MlflowException: No environment can be made from ``description``, the spaces differ from
            those of the model, or the model was trained with VecEnv wrappers that cannot be
            exported.
    """
    source = _read_env(model)
    if description is not None:
        source = replace(source, description=description)
    if source.description is not None:
        try:
            source = _make_again(source.description)
        except MlflowException as error:
            if description is not None:
                raise
            warnings.warn(
                f"The model has no environment to play in: {error.message} To evaluate and promote "
                "it, pass environment=<EnvSpec JSON> to log_model.",
                stacklevel=4,
            )
            source = replace(source, description=None)
    _check_spaces(source, model)
    return source


def describe_source(env: gymnasium.Env[Any, Any], model: BaseAlgorithm) -> SourceEnv:
    """Return the spaces of an environment, without a description.

    Raises:
        MlflowException: The spaces differ from those of the model.
    """
    source = SourceEnv(None, env.observation_space, env.action_space)
    _check_spaces(source, model)
    return source


def _make_again(description: str) -> SourceEnv:
    with env_spec.make_from_spec(description) as env:
        env_spaces = env.observation_space, env.action_space
    return SourceEnv(description, *env_spaces)


def _check_spaces(source: SourceEnv, model: BaseAlgorithm) -> None:
    if not (
        is_compatible(source.observation_space, model.observation_space)
        and is_compatible(source.action_space, model.action_space)
    ):
        raise MlflowException.invalid_parameter_value(
            f"environment has the spaces {source.observation_space} and {source.action_space}, "
            f"but the agent has {model.observation_space} and {model.action_space}. "
            "Pass the environment that the agent was trained in."
        )


def _read_env(model: BaseAlgorithm) -> SourceEnv:
    """Return the environment that a model holds."""
    vec_env = model.get_env()
    if vec_env is None:
        return SourceEnv(None, model.observation_space, model.action_space)
    base, wrappers = _unwrap(vec_env)
    _check_wrappers(wrappers)
    stack = next((wrapper for wrapper in wrappers if isinstance(wrapper, VecFrameStack)), None)
    return SourceEnv(_describe(base, stack), (stack or base).observation_space, base.action_space)


def _check_wrappers(wrappers: list[VecEnvWrapper]) -> None:
    """Check that an exported agent can reproduce the VecEnv wrappers.

    The graph normalizes an observation once, after frame stacking, and then transposes it.
    """
    for wrapper in wrappers:
        if not isinstance(wrapper, (*_PASSIVE, *_ORDER)):
            raise MlflowException.invalid_parameter_value(
                f"The agent was trained with the VecEnv wrapper {type(wrapper).__name__}, which "
                "cannot be exported. Use a gymnasium.Wrapper instead."
            )
    order = [cls for wrapper in wrappers for cls in _ORDER if isinstance(wrapper, cls)]
    if order != sorted(set(order), key=_ORDER.index):
        names = ", ".join(cls.__name__ for cls in order)
        raise MlflowException.invalid_parameter_value(
            f"The agent was trained with the VecEnv wrappers {names} (from the inside), which "
            "cannot be exported in this order. Apply VecFrameStack first, then VecNormalize, each "
            "at most once. SB3 applies VecTransposeImage itself."
        )


def _unwrap(vec_env: VecEnv) -> tuple[VecEnv, list[VecEnvWrapper]]:
    """Return the innermost VecEnv or a ``FactoryVecEnv``, and the wrappers around it."""
    wrappers: list[VecEnvWrapper] = []
    while isinstance(vec_env, VecEnvWrapper) and not isinstance(vec_env, FactoryVecEnv):
        wrappers.insert(0, vec_env)
        vec_env = vec_env.venv
    return vec_env, wrappers


def _describe(base: VecEnv, stack: VecFrameStack | None) -> str | None:
    """Return ``EnvSpec`` JSON, with ``wrappers.FrameStack`` in place of ``VecFrameStack``.

    None if the environment cannot be made from an ``EnvSpec``.
    """
    if isinstance(base, FactoryVecEnv) and stack is not None:
        return None  # only Gymnasium environments can have a wrapper
    try:
        spec = EnvSpec.from_json(env_spec.spec_to_json(base.get_attr("spec", [0])[0]))
    except MlflowException:
        return None
    if stack is not None:
        arguments = {
            "n_stack": stack.stacked_obs.n_stack,
            "channels_order": _read_channels_order(stack.stacked_obs),
        }
        wrapper = WrapperSpec("FrameStack", "mlflow_sb3.wrappers:FrameStack", arguments)
        spec = replace(spec, additional_wrappers=(*spec.additional_wrappers, wrapper))
    return spec.to_json()


def _read_channels_order(stacked: StackedObservations[Any]) -> Any:
    """Return SB3's ``channels_order``, by key for a Dict space."""
    if isinstance(stacked.observation_space, spaces.Dict):
        subspaces = stacked.sub_stacked_observations.items()
        return {key: _read_channels_order(inner) for key, inner in subspaces}
    return "first" if stacked.channels_first else "last"
