"""Tuned hyperparameters, read from the data files of rl_zoo3 and overridden by the caller's."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from mlflow.exceptions import MlflowException

Source = Literal["zoo", "none"]
_NOT_YET = ("normalize", "env_wrapper", "frame_stack", "replay_buffer_class", "vec_env_wrapper", "callback")


@dataclass(frozen=True)
class Preset:
    """Hyperparameters as JSON values; ``origin`` says where they come from."""

    origin: str
    hyperparams: dict[str, Any]


def find(algo: str, env_id: str, *, source: Source = "zoo") -> Preset:
    """Look up what rl_zoo3 has tuned for an algorithm on an environment.

    Its schedules stay strings (``"lin_0.001"`` falls linearly from 0.001 to 0); its ``policy_kwargs``, Python in the
    file, become JSON values, with ``"nn.ReLU"`` for a class of ``torch.nn``. The tuned number of steps is left out.

    Args:
        algo: Lower case, such as ``"dqn"``.
        env_id: The id as Gymnasium registers it.
        source: ``"none"`` leaves SB3's defaults alone.

    Returns:
        The preset, or an empty one where none is tuned.

    Raises:
        MlflowException: The preset uses what this version cannot do yet.
    """
    tuned = _read(algo).get(env_id) if source == "zoo" else None
    if tuned is None:
        return Preset("stable-baselines3 defaults", {})
    hyperparams = {key: _parse(value) for key, value in tuned.items() if key != "n_timesteps"}
    if unsupported := [key for key in _NOT_YET if hyperparams.pop(key, False)]:
        raise MlflowException.invalid_parameter_value(
            f"the rl_zoo3 preset of {algo} for {env_id} uses {', '.join(unsupported)}, which is not supported yet; "
            "train with preset=none and hyperparams of your own."
        )
    return Preset(f"rl_zoo3/hyperparams/{algo}.yml#{env_id}", hyperparams)


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


def _parse(value: Any) -> Any:
    """A value of the file as JSON; text that is a ``dict(...)`` or a literal is read, never run."""
    if not isinstance(value, str) or not value.lstrip().startswith(("dict(", "{")):
        return value
    return _evaluate(ast.parse(value.strip(), mode="eval").body)


def _evaluate(node: ast.expr) -> Any:
    match node:
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
            return {str(keyword.arg): _evaluate(keyword.value) for keyword in keywords}
        case ast.Attribute() | ast.Name():
            return ast.unparse(node)
        case _:
            return ast.literal_eval(node)
