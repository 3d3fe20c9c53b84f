"""Read tuned hyperparameters from the YAML files of rl_zoo3."""

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
"""Environment steps of a training, if neither the caller nor the preset sets a number."""
_MOVED_WRAPPERS = {"gymnasium.wrappers.time_limit.TimeLimit": "gymnasium.wrappers:TimeLimit"}
"""Import paths in rl_zoo3 2.9 that Gymnasium 1.0 removed, with their replacements."""
_SB3_DEFAULTS = "stable-baselines3 defaults"


@dataclass(frozen=True)
class Preset:
    """Hyperparameters and environment settings of one algorithm on one environment."""

    origin: str
    """Where the values come from, such as ``"rl_zoo3/hyperparams/dqn.yml#CartPole-v1"``."""
    hyperparams: dict[str, Any] = field(default_factory=dict)
    """JSON values for ``builder.build_algorithm``."""
    timesteps: int | None = None
    """Environment steps of the training."""
    env_wrappers: tuple[WrapperConfig, ...] = ()
    """Wrappers of each environment, from the inside to the outside."""
    frame_stack: int | None = None
    """Number of observations to stack."""

    def override(self, hyperparams: dict[str, Any]) -> Preset:
        """Return a preset in which some keys are replaced.

        Args:
            hyperparams: Keys and values in the notation of rl_zoo3's files. ``env_wrapper``,
                ``frame_stack`` and ``n_timesteps`` replace the attributes ``env_wrappers``,
                ``frame_stack`` and ``timesteps``. Text such as ``"dict(net_arch=[64])"`` is
                converted to JSON values. A class in this text, such as ``nn.ReLU``, becomes the
                string ``"nn.ReLU"``.

        Raises:
            MlflowException: A value cannot be parsed.
        """
        parsed = {key: _parse(key, value) for key, value in hyperparams.items()}
        changes: dict[str, Any] = {}
        if "env_wrapper" in parsed:
            changes["env_wrappers"] = _list_wrappers(parsed.pop("env_wrapper"))
        if "frame_stack" in parsed:
            changes["frame_stack"] = parsed.pop("frame_stack")
        if "n_timesteps" in parsed:
            changes["timesteps"] = _parse_timesteps(parsed.pop("n_timesteps"))
        return replace(self, hyperparams=self.hyperparams | parsed, **changes)

    def add_wrappers(self, wrappers: list[WrapperConfig]) -> list[WrapperConfig]:
        """Return all wrappers of the environment, from the inside to the outside.

        Args:
            wrappers: Wrappers of the caller. They are applied after the preset's wrappers and
                before the frame stack.
        """
        all_wrappers = [*self.env_wrappers, *wrappers]
        if self.frame_stack:
            all_wrappers.append({"mlflow_sb3.wrappers:FrameStack": {"n_stack": self.frame_stack}})
        return all_wrappers


def find_preset(algo: str, env_id: str, *, source: PresetSource = "zoo") -> Preset:
    """Look up the tuned hyperparameters of an algorithm for an environment.

    As in rl_zoo3, an environment without a section of its own uses the section ``atari`` if it is
    an Atari game, else the section ``default``. ``n_timesteps`` and ``MlpPolicy`` of ``default``
    are ignored, because they do not suit every environment.

    Args:
        algo: Key of ``ALGORITHMS``, such as ``"dqn"``.
        env_id: Gymnasium id. A module prefix as in ``"ale_py:ALE/Pong-v5"`` is ignored.
        source: ``"none"`` uses SB3's defaults.

    Returns:
        The preset. It is empty if rl_zoo3 has no suitable section.

    Raises:
        MlflowException: ``source`` is ``"zoo"``, and rl_zoo3 is not installed.
    """
    sections = _read_sections(algo) if source == "zoo" else {}
    section = env_id.rpartition(":")[2]
    if section not in sections:
        section = "atari" if _is_atari(section) else "default"
    if section not in sections:
        return Preset(_SB3_DEFAULTS)
    tuned = sections[section]
    if section == "default":
        tuned = {
            key: value
            for key, value in tuned.items()
            if key != "n_timesteps" and value != "MlpPolicy"
        }
    return Preset(f"rl_zoo3/hyperparams/{algo}.yml#{section}").override(tuned)


def _read_sections(algo: str) -> dict[str, dict[str, Any]]:
    """Read rl_zoo3's YAML file of an algorithm.

    The package is not imported, because its import changes Gymnasium and loads PyTorch.
    """
    spec = importlib.util.find_spec("rl_zoo3")
    if spec is None or spec.origin is None:
        raise MlflowException.invalid_parameter_value(
            "Presets need rl_zoo3, which is not installed. "
            "Run pip install rl_zoo3, or train with preset=none."
        )
    path = Path(spec.origin).parent / "hyperparams" / f"{algo}.yml"
    sections: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text()) if path.exists() else {}
    return sections


def _is_atari(env_id: str) -> bool:
    spec = gymnasium.registry.get(env_id)
    return spec is not None and "AtariEnv" in str(spec.entry_point)


def _list_wrappers(value: Any) -> tuple[WrapperConfig, ...]:
    """Convert ``env_wrapper``, which is None, one wrapper or a list of wrappers, to a tuple."""
    if value is None:
        return ()
    wrappers = value if isinstance(value, list) else [value]
    return tuple(_replace_moved_wrapper(wrapper) for wrapper in wrappers)


def _replace_moved_wrapper(wrapper: Any) -> Any:
    """Replace an import path that Gymnasium 1.0 removed."""
    if isinstance(wrapper, dict):
        return {_MOVED_WRAPPERS.get(name, name): kwargs for name, kwargs in wrapper.items()}
    return _MOVED_WRAPPERS.get(wrapper, wrapper) if isinstance(wrapper, str) else wrapper


def _parse_timesteps(value: Any) -> int:
    try:
        timesteps = int(float(value))
    except (TypeError, ValueError, OverflowError):
        timesteps = 0
    if timesteps < 1:
        raise MlflowException.invalid_parameter_value(
            f"n_timesteps is {value!r}. Use a number of environment steps, at least 1."
        )
    return timesteps


def _parse(key: str, value: Any) -> Any:
    """Convert a value of a YAML file to JSON values. Python code in it is never executed."""
    if not isinstance(value, str) or not value.lstrip().startswith(("dict(", "{", "[")):
        return value
    try:
        return _evaluate(ast.parse(value.strip(), mode="eval").body)
    except (SyntaxError, TypeError, ValueError) as error:
        raise MlflowException.invalid_parameter_value(
            f"{key} is {value!r}, which cannot be parsed: {error}. Write it as JSON."
        ) from error


def _evaluate(node: ast.expr) -> Any:
    """Convert a ``dict(...)`` call, a literal or a dotted name to JSON values."""
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
