"""Import environment wrappers from JSON, such as ``{"module:Class": {"argument": 1}}``."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
from mlflow.exceptions import MlflowException

from mlflow_sb3.envs import Env

WrapperConfig = str | dict[str, dict[str, Any]]
"""``"module:Class"`` or ``{"module:Class": {"argument": 1}}``.

rl_zoo3's ``"module.Class"`` is accepted as well.
"""

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
"""Exceptions that imports and constructors of environments and wrappers raise."""


@dataclass(frozen=True)
class EnvWrapper:
    """A wrapper class, or a function that returns a wrapper, with its arguments.

    Attributes:
        entry_point: Import path of the class or function, ``"module:name"``.
        create: The class or function.
        kwargs: Other arguments than ``env``.
    """

    entry_point: str
    create: Callable[..., Any]
    kwargs: dict[str, Any]

    def wrap(self, env: Env) -> Env:
        """Wrap an environment as ``gymnasium.make`` does: ``create(env=env, **kwargs)``.

        Raises:
            MlflowException: The wrapper rejects the arguments or the environment, or ``create``
                does not return an environment.
        """
        self._check_arguments(env)
        try:
            wrapped = self.create(env=env, **self.kwargs)
        except ENV_ERRORS as error:
            raise self._build_error(
                f"cannot wrap {env}: {format_cause(error)} "
                "Use another wrapper for this environment, or other arguments of the wrapper."
            ) from error
        if not isinstance(wrapped, gymnasium.Env):
            raise self._build_error(
                f"returns {type(wrapped).__name__}, which is no gymnasium.Env. "
                "Return a gymnasium.Wrapper."
            )
        return wrapped

    def _check_arguments(self, env: Env) -> None:
        signature = inspect.signature(self.create)
        parameters = list(signature.parameters.values())
        has_kwargs = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        if "env" not in signature.parameters and not has_kwargs:
            if not parameters:
                raise self._build_error("has no parameter 'env'. Add it.")
            raise self._build_error(
                f"has {parameters[0].name!r} as its first parameter, but gymnasium.make passes the "
                "environment as 'env'. Rename the parameter to env."
            )
        try:
            signature.bind(env=env, **self.kwargs)
        except TypeError as error:
            names = [parameter.name for parameter in parameters if parameter.name != "env"]
            raise self._build_error(
                f"does not accept the arguments {json.dumps(self.kwargs, default=str)}: "
                f"{format_cause(error)} The wrapper has the arguments: "
                f"{', '.join(names) or 'none'}."
            ) from error

    def _build_error(self, reason: str) -> MlflowException:
        error: MlflowException = MlflowException.invalid_parameter_value(
            f"wrapper {self.entry_point} {reason}"
        )
        return error


def format_cause(error: BaseException) -> str:
    """Return the message of an error with one period, or its question mark, at its end.

    An error without a message, such as that of a bare ``assert``, is named by its type.
    """
    message = str(error).rstrip(". ") or type(error).__name__
    return message if message.endswith("?") else f"{message}."


def get_entry_point(config: WrapperConfig) -> str:
    """Return the import path of a wrapper configuration as ``"module:name"``.

    Raises:
        MlflowException: The configuration is malformed.
    """
    return _parse_config(config)[0]


def import_wrapper(config: WrapperConfig) -> EnvWrapper:
    """Import the class or function of a wrapper configuration.

    Raises:
        MlflowException: The configuration is malformed, the import fails, or the imported object is
            neither a subclass of ``gymnasium.Wrapper`` nor a function.
    """
    entry_point, kwargs = _parse_config(config)
    module, _, name = entry_point.partition(":")
    try:
        create = getattr(importlib.import_module(module), name)
    except ENV_ERRORS as error:
        raise MlflowException.invalid_parameter_value(
            f"wrapper {entry_point} cannot be imported: {format_cause(error)} "
            "Use 'module:Class' of an installed module or of a module in the working directory."
        ) from error
    is_other_class = isinstance(create, type) and not issubclass(create, gymnasium.Wrapper)
    if is_other_class or not callable(create):
        raise MlflowException.invalid_parameter_value(
            f"wrapper {entry_point} is neither a gymnasium.Wrapper nor a function. "
            "Derive the class from gymnasium.Wrapper."
        )
    return EnvWrapper(entry_point, create, kwargs)


def _parse_config(config: WrapperConfig) -> tuple[str, dict[str, Any]]:
    """Return the entry point, as ``module:Class``, and the arguments."""
    items = {config: {}} if isinstance(config, str) else config
    entry_point, kwargs = (
        next(iter(items.items())) if isinstance(items, dict) and len(items) == 1 else ("", {})
    )
    module, _, name = entry_point.rpartition(":" if ":" in entry_point else ".")
    is_import_path = module.replace(".", "_").isidentifier() and name.isidentifier()
    if not is_import_path or not isinstance(kwargs, dict):
        raise MlflowException.invalid_parameter_value(
            f"{json.dumps(config, default=str)} is no wrapper in JSON notation. "
            'Use "module:Class" or {"module:Class": {"argument": 1}}.'
        )
    return f"{module}:{name}", kwargs
