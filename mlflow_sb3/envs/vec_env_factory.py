"""Make environments with a function that returns several of them at once, as an SB3 ``VecEnv``.

Some simulators, such as EnvPool, step many environments in one call, and cannot start a single
episode from a seed. ``module:function`` stands for an environment id then. Its ``EnvSpec`` has the
entry point ``FirstEnv``, and the function and its arguments as ``kwargs``.
"""

from __future__ import annotations

import importlib
import inspect
import json
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from mlflow.exceptions import MlflowException

from mlflow_sb3.envs import entry_points, spaces
from mlflow_sb3.envs.wrapper_config import ENV_ERRORS, format_cause

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv


class FirstEnv(gymnasium.Env[Any, Any]):
    """The only environment of a ``VecEnv`` that was made with ``n_envs=1``.

    It shows the spaces, and lets an agent play a few steps. Whether ``reset(seed=...)`` has an
    effect depends on the method ``seed`` of the ``VecEnv``.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  # as in gymnasium.Env

    def __init__(
        self, factory: str, arguments: dict[str, Any], render_mode: str | None = None
    ) -> None:
        """Call the function.

        Args:
            factory: ``"module:function"``.
            arguments: Arguments of the function, in addition to ``n_envs`` and ``seed``.
            render_mode: Ignored. The function decides how its environments are rendered.

        Raises:
            MlflowException: As in ``make_vec_env``.
        """
        self._vec_env = _make(factory, arguments, n_envs=1, seed=0)
        self.observation_space = self._vec_env.observation_space
        self.action_space = self._vec_env.action_space
        self.render_mode = None if render_mode is None else self._vec_env.render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed, options=options)
        if seed is not None:
            self._vec_env.seed(seed)
        return _get_first(self._vec_env.reset()), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step."""
        observations, rewards, dones, infos = self._vec_env.step(np.array([action]))
        is_done, info = bool(dones[0]), infos[0]
        is_truncated = is_done and bool(info.get("TimeLimit.truncated", False))
        observation = _get_first(observations)
        if is_done:
            observation = info.get("terminal_observation", observation)
        return observation, float(rewards[0]), is_done and not is_truncated, is_truncated, info

    def render(self) -> Any:
        """Return the picture of the environment, shape ``(height, width, 3)``."""
        return self._vec_env.get_images()[0]

    def close(self) -> None:
        """Close the ``VecEnv``."""
        self._vec_env.close()


def is_factory(env_id: str) -> bool:
    """Return whether an environment id names a function that can be imported."""
    module, _, name = env_id.partition(":")
    if not name.isidentifier():
        return False
    try:
        return inspect.isfunction(getattr(importlib.import_module(module), name, None))
    except (*ENV_ERRORS, SyntaxError, SystemExit):
        return False


def build_spec(env_id: str, arguments: dict[str, Any]) -> EnvSpec:
    """Return the ``EnvSpec`` of an environment id that names a function."""
    return EnvSpec(
        env_id,
        entry_point=entry_points.FACTORY_ENTRY_POINT,
        kwargs={"factory": env_id, "arguments": arguments},
    )


def is_vec_env(env_spec_json: str) -> bool:
    """Return whether an ``EnvSpec`` JSON describes environments that a function makes."""
    try:
        return bool(json.loads(env_spec_json)["entry_point"] == entry_points.FACTORY_ENTRY_POINT)
    except (KeyError, TypeError, ValueError):
        return False  # make_from_spec reports that it is no EnvSpec JSON


def make_vec_env(env_spec_json: str, *, n_envs: int, seed: int) -> VecEnv:
    """Make environments.

    Args:
        env_spec_json: ``EnvSpec`` JSON for which ``is_vec_env`` is true.
        n_envs: Number of environments.
        seed: Seed of the simulator.

    Raises:
        MlflowException: The function is not trusted, cannot be imported or fails; or its result is
            not the ``VecEnv`` that was requested, or cannot be used.
    """
    spec = EnvSpec.from_json(env_spec_json)
    if json.loads(spec.to_json()) != json.loads(_rebuild_spec(spec).to_json()):
        raise MlflowException.invalid_parameter_value(
            f"{env_spec_json!r} describes no environments of a function. Use the EnvSpec JSON that "
            "train records."
        )
    return _make(**spec.kwargs, n_envs=n_envs, seed=seed)


def _rebuild_spec(spec: EnvSpec) -> EnvSpec:
    """Return the specification that ``build_spec`` makes for the same function and arguments."""
    factory, arguments = spec.kwargs.get("factory"), spec.kwargs.get("arguments")
    return build_spec(str(factory), arguments if isinstance(arguments, dict) else {})


def _make(factory: str, arguments: dict[str, Any], *, n_envs: int, seed: int) -> VecEnv:
    create = entry_points.import_function(factory)
    try:
        from stable_baselines3.common.vec_env import VecEnv
    except ImportError as error:
        raise MlflowException.invalid_parameter_value(
            f"{factory} makes a VecEnv of Stable-Baselines3, which is not installed. "
            "Install mlflow-sb3[train]."
        ) from error
    try:
        vec_env = create(n_envs=n_envs, seed=seed, **arguments)
    except Exception as error:  # the function of a user can raise anything
        raise _build_error(
            factory, f"failed with n_envs={n_envs}, seed={seed}, {arguments}: {format_cause(error)}"
        ) from error
    if not isinstance(vec_env, VecEnv):
        raise _build_error(factory, f"returned a {type(vec_env).__name__}. Return a VecEnv of SB3.")
    try:
        _check_vec_env(factory, vec_env, n_envs)
    except MlflowException:
        vec_env.close()
        raise
    return vec_env


def _check_vec_env(factory: str, vec_env: VecEnv, n_envs: int) -> None:
    from stable_baselines3.common.vec_env import unwrap_vec_normalize

    if vec_env.num_envs != n_envs:
        raise _build_error(
            factory,
            f"returned {vec_env.num_envs} environments for n_envs={n_envs}. Return {n_envs}.",
        )
    if unwrap_vec_normalize(vec_env) is not None:
        raise _build_error(
            factory, "returned a VecNormalize. Remove it, and use the hyperparameter normalize."
        )
    for space in (*spaces.list_subspaces(vec_env.observation_space), vec_env.action_space):
        if spaces.get_space_start(space) is not None:
            raise _build_error(
                factory, f"returned the space {space}. SB3 needs discrete spaces that start at 0."
            )


def _build_error(factory: str, reason: str) -> MlflowException:
    error: MlflowException = MlflowException.invalid_parameter_value(
        f"The function {factory} {reason}"
    )
    return error


def _get_first(observations: Any) -> Any:
    """Return the first observation of a batch."""
    if isinstance(observations, dict):
        return {key: values[0] for key, values in observations.items()}
    return observations[0]
