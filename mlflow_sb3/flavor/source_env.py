"""Where an agent comes from: the environment that it was trained in, and the spaces that this environment has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

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

_WATCHING = (VecMonitor, VecCheckNan, VecVideoRecorder)
_ORDER = (VecFrameStack, VecNormalize, VecTransposeImage)
_EXPORTED = _ORDER[1:]
"""Their work is done inside the graph."""


@dataclass(frozen=True)
class SourceEnv:
    """An environment as ``EnvSpec`` JSON, if it can be made again from one, and the spaces as it has them."""

    description: str | None
    observation_space: Space[Any]
    action_space: Space[Any]


def check_algorithm(model: Any) -> None:
    """Refuse what is no SB3 algorithm."""
    if not isinstance(model, BaseAlgorithm):
        raise MlflowException.invalid_parameter_value(
            f"{type(model).__module__}.{type(model).__name__} is no agent; give an algorithm of stable_baselines3 or sb3_contrib."
        )


def find_source_env(model: BaseAlgorithm, description: str | None = None) -> SourceEnv:
    """The environment of a model: the described one, or else the one that the model holds.

    Raises:
        MlflowException: It does not fit to the model, or what stands between the two cannot be exported.
    """
    held = _held(model)
    found = (
        held
        if description is None
        else SourceEnv(description, held.observation_space, held.action_space)
    )
    if found.description is not None:
        with env_spec.make_from_spec(found.description) as env:
            found = SourceEnv(found.description, env.observation_space, env.action_space)
    if not (
        is_compatible(found.observation_space, model.observation_space)
        and is_compatible(found.action_space, model.action_space)
    ):
        raise MlflowException.invalid_parameter_value(
            f"environment has other spaces than the agent ({found.observation_space} and {found.action_space}, where the agent has "
            f"{model.observation_space} and {model.action_space}); give the one it was trained in."
        )
    return found


def _held(model: BaseAlgorithm) -> SourceEnv:
    """What a model knows of its environment by itself."""
    vec_env = model.get_env()
    if vec_env is None:
        return SourceEnv(None, model.observation_space, model.action_space)
    base, wrappers = _unwrapped(vec_env)
    _check_order(wrappers)
    observation_space, stack = base.observation_space, None
    for wrapper in wrappers:
        if isinstance(wrapper, VecFrameStack):
            observation_space, stack = wrapper.observation_space, wrapper
        elif not isinstance(wrapper, (*_WATCHING, *_EXPORTED)):
            raise MlflowException.invalid_parameter_value(
                f"the agent learned through {type(wrapper).__name__}, which cannot be exported; use a gymnasium.Wrapper."
            )
    return SourceEnv(_described(base, stack), observation_space, base.action_space)


def _check_order(wrappers: list[VecEnvWrapper]) -> None:
    """The graph transposes what it has normalized, and normalizes once what is stacked."""
    order = [cls for wrapper in wrappers for cls in _ORDER if isinstance(wrapper, cls)]
    if order != sorted(set(order), key=_ORDER.index):
        names = ", ".join(cls.__name__ for cls in order)
        raise MlflowException.invalid_parameter_value(
            f"{names}, from the inside out, cannot be exported; wrap the environments by VecFrameStack first, then by VecNormalize, "
            "each once, and leave VecTransposeImage to SB3."
        )


def _unwrapped(vec_env: VecEnv) -> tuple[VecEnv, list[VecEnvWrapper]]:
    """The environments themselves, and the wrappers around them from the inside out."""
    wrappers: list[VecEnvWrapper] = []
    while isinstance(vec_env, VecEnvWrapper):
        wrappers.insert(0, vec_env)
        vec_env = vec_env.venv
    return vec_env, wrappers


def _described(base: VecEnv, stack: VecFrameStack | None) -> str | None:
    try:
        spec = EnvSpec.from_json(env_spec.spec_to_json(base.get_attr("spec", [0])[0]))
    except MlflowException:
        return None
    if stack is not None:
        arguments = {
            "n_stack": stack.stacked_obs.n_stack,
            "channels_order": _order(stack.stacked_obs),
        }
        wrapper = WrapperSpec("FrameStack", "mlflow_sb3.wrappers:FrameStack", arguments)
        spec = replace(spec, additional_wrappers=(*spec.additional_wrappers, wrapper))
    return spec.to_json()


def _order(stacked: StackedObservations[Any]) -> Any:
    """SB3's ``channels_order``, by the keys of a Dict space."""
    if isinstance(stacked.observation_space, spaces.Dict):
        return {key: _order(inner) for key, inner in stacked.sub_stacked_observations.items()}
    return "first" if stacked.channels_first else "last"
