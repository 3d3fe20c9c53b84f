"""Tuned hyperparameters, read from the data files of rl_zoo3 and overridden by the caller's."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import gymnasium
import yaml
from mlflow.exceptions import MlflowException

from mlflow_sb3.envs.wrapper_config import WrapperConfig

PresetSource = Literal["zoo", "none"]
DEFAULT_TIMESTEPS = 50_000
"""Environment steps to learn from, where nobody says how many."""
_MOVED = {"gymnasium.wrappers.time_limit.TimeLimit": "gymnasium.wrappers:TimeLimit"}
"""Names in the data files of rl_zoo3 2.9 that Gymnasium 1.0 dropped."""


@dataclass(frozen=True)
class Preset:
    """What to train with, as JSON values: ``hyperparams`` for ``algorithms.build``, the rest for the environment and the length."""

    origin: str
    hyperparams: dict[str, Any] = field(default_factory=dict)
    timesteps: int | None = None
    env_wrappers: tuple[WrapperConfig, ...] = ()
    frame_stack: int | None = None

    def override(self, hyperparams: dict[str, Any]) -> Preset:
        """Replace single keys, in the notation of rl_zoo3's files; the keys that are no hyperparameters find their place here.

        ``env_wrapper`` (one or a list) and ``frame_stack`` belong to the environment, ``n_timesteps`` to the training.
        Text that is Python's ``dict(...)`` or a literal becomes JSON, with ``"nn.ReLU"`` for a class.

        Raises:
            MlflowException: A value cannot be read.
        """
        read = {key: _parse(key, value) for key, value in hyperparams.items()}
        changes: dict[str, Any] = {}
        if "env_wrapper" in read:
            changes["env_wrappers"] = _wrappers(read.pop("env_wrapper"))
        if "frame_stack" in read:
            changes["frame_stack"] = read.pop("frame_stack")
        if "n_timesteps" in read:
            changes["timesteps"] = _steps(read.pop("n_timesteps"))
        return replace(self, hyperparams=self.hyperparams | read, **changes)

    def wrappers(self, more: list[WrapperConfig]) -> list[WrapperConfig]:
        """All wrappers of the environment, the innermost first: the preset's, the caller's, and the frames stacked in the end."""
        stack: list[WrapperConfig] = (
            [{"mlflow_sb3.wrappers:FrameStack": {"n_stack": self.frame_stack}}]
            if self.frame_stack
            else []
        )
        return [*self.env_wrappers, *more, *stack]


def find_preset(algo: str, env_id: str, *, source: PresetSource = "zoo") -> Preset:
    """Look up what rl_zoo3 has tuned for an algorithm on an environment.

    As in rl_zoo3, the section ``atari`` serves all Atari games, and ``default`` what nobody tuned; its number of steps and its
    MlpPolicy fit no environment in particular, and are left out.

    Args:
        algo: Lower case, such as ``"dqn"``. (her.yml is none of them: rl_zoo3 itself no longer reads that file.)
        env_id: The id as Gymnasium registers it; a module in front of it is left away.
        source: ``"none"`` leaves SB3's defaults alone.

    Returns:
        The preset, or an empty one where there is none.
    """
    sections = _read(algo) if source == "zoo" else {}
    name = env_id.rpartition(":")[2]
    section = name if name in sections else "atari" if _is_atari(name) else "default"
    if section not in sections:
        return Preset("stable-baselines3 defaults")
    tuned = sections[section]
    if section == "default":
        tuned = {
            key: value
            for key, value in tuned.items()
            if key != "n_timesteps" and value != "MlpPolicy"
        }
    return Preset(f"rl_zoo3/hyperparams/{algo}.yml#{section}").override(tuned)


def _read(algo: str) -> dict[str, dict[str, Any]]:
    """Read a file of rl_zoo3 without importing the package, whose import patches Gymnasium and loads torch."""
    spec = importlib.util.find_spec("rl_zoo3")
    if spec is None or spec.origin is None:
        raise MlflowException.invalid_parameter_value(
            "rl_zoo3 is not installed, so there are no presets; pip install rl_zoo3, or train with preset=none."
        )
    path = Path(spec.origin).parent / "hyperparams" / f"{algo}.yml"
    tuned: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text()) if path.exists() else {}
    return tuned


def _is_atari(env_id: str) -> bool:
    spec = gymnasium.registry.get(env_id)
    return spec is not None and "AtariEnv" in str(spec.entry_point)


def _wrappers(value: Any) -> tuple[WrapperConfig, ...]:
    """``env_wrapper`` as a tuple: none, one, or a list of them."""
    listed = [] if value is None else value if isinstance(value, list) else [value]
    return tuple(_moved(entry) for entry in listed)


def _moved(entry: Any) -> Any:
    """A wrapper under the name that it has today."""
    if isinstance(entry, dict):
        return {_MOVED.get(name, name): kwargs for name, kwargs in entry.items()}
    return _MOVED.get(entry, entry) if isinstance(entry, str) else entry


def _steps(value: Any) -> int:
    try:
        steps = int(float(value))
    except (TypeError, ValueError, OverflowError):
        steps = 0
    if steps < 1:
        raise MlflowException.invalid_parameter_value(
            f"n_timesteps is {value!r}; give a number of environment steps, at least 1."
        )
    return steps


def _parse(key: str, value: Any) -> Any:
    """A value of the file as JSON; text that is a ``dict(...)`` or a literal is read, never run."""
    if not isinstance(value, str) or not value.lstrip().startswith(("dict(", "{", "[")):
        return value
    try:
        return _evaluate(ast.parse(value.strip(), mode="eval").body)
    except (SyntaxError, TypeError, ValueError) as error:
        raise MlflowException.invalid_parameter_value(
            f"{key} is {value!r}, which cannot be read: {error}; write it as JSON."
        ) from error


def _evaluate(node: ast.expr) -> Any:
    match node:
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
            return {str(keyword.arg): _evaluate(keyword.value) for keyword in keywords}
        case ast.Dict(keys=keys, values=values):
            return {
                ast.literal_eval(key or node): _evaluate(value)
                for key, value in zip(keys, values, strict=True)
            }
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_evaluate(item) for item in items]
        case ast.Attribute() | ast.Name():
            return ast.unparse(node)
        case _:
            return ast.literal_eval(node)
