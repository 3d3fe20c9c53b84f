"""Check the classes and functions that a stored ``EnvSpec`` names, before they are called.

A stored ``EnvSpec`` comes from a model or a run, which another user may have written. It may name
environments and wrappers of trusted modules, and nothing else.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import site
import sys
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec
from mlflow.exceptions import MlflowException

from mlflow_sb3.envs.wrapper_config import ENV_ERRORS, format_cause

TRUSTED_MODULES = "MLFLOW_SB3_TRUSTED_MODULES"
"""Environment variable with trusted modules, separated by commas.

``module`` trusts the module, its submodules and their functions. ``module:`` trusts only their
environment and wrapper classes. ``module:name`` trusts one class or function.
"""
FACTORY_ENTRY_POINT = "mlflow_sb3.envs.vec_env_factory:FirstEnv"
"""Entry point of an ``EnvSpec`` whose argument ``factory`` names a function."""
_PROJECT = Path(__file__).parents[2]


def trust_options(env: str, wrappers: Iterable[str] = ()) -> None:
    """Trust what the user named in options, in this process and in its children.

    Call this only for values that come from the user, not from a model or a run.

    Args:
        env: Gymnasium id such as ``"module:EnvId-v0"``, ``"module:function"``, or ``EnvSpec`` JSON.
        wrappers: Entry points of wrappers, ``"module:name"``.
    """
    named = set(wrappers)
    if env.lstrip().startswith("{"):
        named |= _list_entry_points(env)
    elif ":" in env:
        named |= {env, f"{env.partition(':')[0]}:", *_list_registered(env)}
    os.environ[TRUSTED_MODULES] = ",".join(sorted(named | _list_trusted()))


def _list_registered(env_id: str) -> set[str]:
    """Import the module of a Gymnasium id, and return the entry points that it registers."""
    module, _, name = env_id.partition(":")
    try:
        importlib.import_module(module)
        return _list_entry_points(gymnasium.spec(name).to_json())
    except (*ENV_ERRORS, SyntaxError, SystemExit):
        return set()  # make_env reports it


def _list_entry_points(spec_json: str) -> set[str]:
    """Return the entry points of an ``EnvSpec`` JSON. Empty if it is invalid."""
    try:
        spec = EnvSpec.from_json(spec_json)
    except (AttributeError, ValueError, KeyError, TypeError):
        return set()
    named = {str(wrapper.entry_point) for wrapper in spec.additional_wrappers}
    if spec.entry_point == FACTORY_ENTRY_POINT:
        named.add(str(spec.kwargs.get("factory")))
    return {str(spec.entry_point), *named}


def check_spec(spec: EnvSpec) -> None:
    """Check that a stored ``EnvSpec`` names an environment and wrappers of trusted modules.

    An environment is a subclass of ``gymnasium.Env``, or the entry point that Gymnasium has
    registered under the id of the spec. A wrapper is a subclass of ``gymnasium.Wrapper``.

    Raises:
        MlflowException: A module is not trusted or cannot be imported, or an entry point is
            something else.
    """
    entry_point = str(spec.entry_point)
    create = _import_trusted(entry_point)
    registered = gymnasium.registry.get(spec.id)
    if registered is None or registered.entry_point not in (entry_point, create):
        _check_callable(entry_point, create, gymnasium.Env)
    for wrapper in spec.additional_wrappers:
        check_wrapper(wrapper.entry_point)


def check_wrapper(entry_point: str) -> None:
    """Check that an entry point is a ``gymnasium.Wrapper`` of a trusted module.

    Raises:
        MlflowException: See ``check_spec``.
    """
    _check_callable(entry_point, _import_trusted(entry_point), gymnasium.Wrapper)


def import_function(entry_point: str) -> Callable[..., Any]:
    """Import a function that makes environments.

    Raises:
        MlflowException: The function is not trusted, or cannot be imported.
    """
    function: Callable[..., Any] = _import_trusted(entry_point)
    _check_callable(entry_point, function)
    return function


def _import_trusted(entry_point: str) -> Any:
    """Import an object from a trusted module.

    Raises:
        MlflowException: The module is not trusted, or there is no such object.
    """
    check_module(entry_point)
    module, _, name = entry_point.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (*ENV_ERRORS, SyntaxError, SystemExit) as error:
        raise MlflowException.invalid_parameter_value(
            f"{entry_point} cannot be imported: {format_cause(error)} Install the packages of the "
            "environment and its wrappers in the versions that the training used."
        ) from error


def check_module(entry_point: str) -> None:
    """Check that the module of an entry point may be imported.

    These modules are trusted: installed packages, this project, modules that this process has
    already imported, and modules in ``MLFLOW_SB3_TRUSTED_MODULES``.

    Args:
        entry_point: Import path, ``"module:name"``.

    Raises:
        MlflowException: The module is not trusted.
    """
    module = str(entry_point).partition(":")[0]
    package = module.partition(".")[0]
    is_imported = module in sys.modules and package not in sys.stdlib_module_names
    is_script = module.rpartition(".")[2] == "__main__"  # importing it would run the program
    if is_imported or _is_named(entry_point) or _is_in_named_module(module, with_classes=True):
        return
    if not is_script and _is_own_or_installed(package):
        return
    raise MlflowException.invalid_parameter_value(
        f"{entry_point} is not imported, because the module {module} is neither installed nor a "
        "part of this project. Install the package of the environment. If you trust a module of "
        f"your own, set {TRUSTED_MODULES}={module}."
    )


def _check_callable(entry_point: str, create: Any, base: type | None = None) -> None:
    """Check that a class has a base class, or that the user trusts a class or function."""
    if base is not None and isinstance(create, type) and issubclass(create, base):
        return
    module = entry_point.partition(":")[0]
    # A module may have imported a function of another module, such as subprocess.run.
    is_own = inspect.isfunction(create) and create.__module__ == module
    if _is_named(entry_point) or (is_own and _is_in_named_module(module, with_classes=False)):
        return
    kind = "a function" if base is None else f"no subclass of gymnasium.{base.__name__}"
    raise MlflowException.invalid_parameter_value(
        f"{entry_point} is not called, because it is {kind} and could run any code. "
        f"If you trust it, set {TRUSTED_MODULES}={module}."
    )


def _list_trusted() -> set[str]:
    names = os.environ.get(TRUSTED_MODULES, "").split(",")
    return {name.strip() for name in names} - {""}


def _is_named(entry_point: str) -> bool:
    return ":" in entry_point and entry_point in _list_trusted()


def _is_in_named_module(module: str, *, with_classes: bool) -> bool:
    """Return whether a module, or a package that it is in, is trusted.

    Args:
        module: Import path of the module.
        with_classes: Whether it suffices that its classes are trusted.
    """
    parts = module.split(".")
    packages = {".".join(parts[: count + 1]) for count in range(len(parts))}
    if with_classes:
        packages |= {f"{package}:" for package in packages}
    return not packages.isdisjoint(_list_trusted())


def _is_own_or_installed(package: str) -> bool:
    """Return whether a package is a part of this project or of an installed distribution."""
    try:
        found = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return False
    if found is None:
        return False
    if found.origin is not None and Path(found.origin).is_relative_to(_PROJECT):
        return True
    # A namespace package has no origin, only locations.
    locations = [found.origin or "", *(found.submodule_search_locations or ())]
    installed = (*site.getsitepackages(), site.getusersitepackages())
    if any(Path(location).is_relative_to(folder) for location in locations for folder in installed):
        return True
    return package in metadata.packages_distributions()  # an editable installation
