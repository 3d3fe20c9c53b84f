"""Environment wrappers in JSON notation."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
from mlflow.exceptions import MlflowException

Env = gymnasium.Env[Any, Any]

WrapperConfig = str | dict[str, dict[str, Any]]
"""``"module:Class"``, or ``{"module:Class": {"kwarg": 1}}``; rl_zoo3's ``module.Class`` too."""

ENV_ERRORS = (
    gymnasium.error.Error,
    ImportError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What the constructors of environments and wrappers raise."""


@dataclass(frozen=True)
class EnvWrapper:
    """What wraps an environment, and the arguments for it."""

    entry_point: str
    create: Callable[..., Any]
    kwargs: dict[str, Any]

    def wrap(self, env: Env) -> Env:
        """Wrap an environment as Gymnasium does: by ``create(env=env, **kwargs)``."""
        self._check_arguments(env)
        try:
            wrapped = self.create(env=env, **self.kwargs)
        except ENV_ERRORS as error:
            raise self._refusal(
                f"cannot wrap {env}: {str(error).rstrip('.')}; give it an environment and arguments that fit."
            ) from error
        if not isinstance(wrapped, gymnasium.Env):
            raise self._refusal(
                f"makes {type(wrapped).__name__}, which is no gymnasium.Env; give a gymnasium.Wrapper."
            )
        return wrapped

    def _check_arguments(self, env: Env) -> None:
        signature = inspect.signature(self.create)
        parameters = list(signature.parameters.values())
        if "env" not in signature.parameters and not any(
            parameter.kind is parameter.VAR_KEYWORD for parameter in parameters
        ):
            first = repr(parameters[0].name) if parameters else "nothing"
            raise self._refusal(
                f"takes {first} first, but Gymnasium hands the environment over as 'env'; call its first parameter env."
            )
        try:
            signature.bind(env=env, **self.kwargs)
        except TypeError as error:
            taken = (
                ", ".join(parameter.name for parameter in parameters if parameter.name != "env")
                or "no arguments"
            )
            raise self._refusal(
                f"does not take {json.dumps(self.kwargs, default=str)}: {error}; it takes {taken}."
            ) from error

    def _refusal(self, reason: str) -> MlflowException:
        refusal: MlflowException = MlflowException.invalid_parameter_value(
            f"wrapper {self.entry_point} {reason}"
        )
        return refusal


def find_wrapper(wrapper: WrapperConfig) -> EnvWrapper:
    """Import what a wrapper's notation names."""
    name, kwargs = _read_wrapper(wrapper)
    try:
        created = getattr(importlib.import_module(name.partition(":")[0]), name.partition(":")[2])
    except ENV_ERRORS as error:
        raise MlflowException.invalid_parameter_value(
            f"wrapper {name} cannot be imported: {error}; give 'module:Class' of a class that is installed or in the working folder."
        ) from error
    if not callable(created) or (
        isinstance(created, type) and not issubclass(created, gymnasium.Wrapper)
    ):
        raise MlflowException.invalid_parameter_value(
            f"wrapper {name} is no gymnasium.Wrapper, nor a function that makes one; let it inherit from gymnasium.Wrapper."
        )
    return EnvWrapper(name, created, kwargs)


def _read_wrapper(wrapper: WrapperConfig) -> tuple[str, dict[str, Any]]:
    """Name, as ``module:Class``, and arguments."""
    notation = {wrapper: {}} if isinstance(wrapper, str) else wrapper
    name, kwargs = (
        next(iter(notation.items()))
        if isinstance(notation, dict) and len(notation) == 1
        else ("", {})
    )
    module, _, created = name.rpartition(":" if ":" in name else ".")
    if not (
        module.replace(".", "_").isidentifier()
        and created.isidentifier()
        and isinstance(kwargs, dict)
    ):
        raise MlflowException.invalid_parameter_value(
            f"{json.dumps(wrapper, default=str)} names no wrapper; write 'module:Class' or {{'module:Class': {{'argument': 1}}}}, as JSON."
        )
    return f"{module}:{created}", kwargs
