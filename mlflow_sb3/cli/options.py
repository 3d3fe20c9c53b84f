"""Define parameter types and shared options of the entry points.

Every option has a default, because an MLflow Project passes all its parameters to the command. An
empty text stands for "not set". A help text may end with ``[default: ...]`` if the default value
itself does not explain the effect.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]

OPTION_GROUPS = {
    "Task": (
        "config",
        "path",
        "model_uri",
        "folder",
        "env",
        "env_kwargs",
        "wrappers",
        "algo",
        "timesteps",
        "seed",
        "run_id",
    ),
    "Learning": ("preset", "hyperparams", "from_model", "torch_threads"),
    "Checkpoints": (
        "selection",
        "eval_freq",
        "eval_steps",
        "eval_episodes",
        "eval_budget",
        "race_episodes",
    ),
    "Versions": (
        "model_name",
        "number",
        "alias",
        "candidates",
        "top",
        "experiment",
        "inference",
        "image_input",
    ),
    "Gate": (
        "episodes",
        "gate_episodes",
        "alpha",
        "alpha_per_reign",
        "min_improvement",
        "min_return",
        "environment",
        "rule",
        "reason",
        "approval",
        "fail_on_reject",
        "replay",
    ),
    "Security": ("signing_key", "public_key", "allow_pickle"),
    "Interruptions": ("resume", "fresh", "snapshot_every", "state_folder", "delivery_timeout"),
}
"""Names of options by the heading in the help of a command. Others have the heading Other."""


class JsonValue(click.ParamType[Any]):
    """JSON object or list, of the same type as an example."""

    def __init__(self, example: str) -> None:
        self._example = example
        self._type = type(json.loads(example))
        self.name = "JSON object" if self._type is dict else "JSON list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse a text. Return other values unchanged."""
        try:
            parsed = json.loads(value) if isinstance(value, str) else value
        except json.JSONDecodeError as error:
            self.fail(f"{value!r} is not valid JSON: {error}. Example: {self._example}", param, ctx)
        if not isinstance(parsed, self._type):
            self.fail(f"{value!r} is not a {self.name}. Example: {self._example}", param, ctx)
        return parsed


class IntegerList(click.ParamType[list[int]]):
    """JSON list of increasing positive integers."""

    name = "JSON list of integers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int]:
        """Parse a text. Return a list unchanged."""
        parsed: list[int] = JsonValue("[1000, 2000]").convert(value, param, ctx)
        is_valid = all(type(item) is int and item > 0 for item in parsed)
        if not is_valid or sorted(set(parsed)) != parsed:
            self.fail(f"{value!r} is not a list of increasing positive integers.", param, ctx)
        return parsed


class OptionalValue(click.ParamType[Any]):
    """Value of another type, or an empty text for None."""

    def __init__(self, inner: click.ParamType[Any]) -> None:
        self.inner = inner
        self.name = inner.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return None for an empty text. Convert other values with the inner type."""
        return None if value in ("", None) else self.inner.convert(value, param, ctx)


class VersionNumber(click.ParamType[int | None]):
    """Number of a model version, or an empty text for None."""

    name = "integer"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        """Return None for an empty text. Parse other values as a positive number."""
        if value == "":
            return None
        try:
            number = int(value)
        except ValueError:
            number = 0
        if number < 1:
            self.fail(
                f"{value!r} is not the number of a model version. "
                "Pass a positive integer, or leave version out to use the version with an alias.",
                param,
                ctx,
            )
        return number


class LowerCase(click.ParamType[str]):
    """Text in any case. It is converted to lower case."""

    name = "string"

    def convert(self, value: Any, *_: Any) -> str:
        """Return the text in lower case."""
        return str(value).lower()


class AbsoluteFolder(click.ParamType[str]):
    """Absolute path of a folder, or an empty text."""

    name = "string"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the path. Refuse a relative path, because a project may run in a clone."""
        if value and not Path(value).is_absolute():
            self.fail(
                f"{value!r} is a relative path, and it is not certain in which folder a step runs. "
                f"Pass an absolute path, such as {str(Path(value).absolute())!r}.",
                param,
                ctx,
            )
        return str(value)


def add_options(command: Command, *options: Callable[[Command], Command]) -> Command:
    """Add click options to a command in the order of the arguments."""
    for option in reversed(options):
        command = option(command)
    return command


def boolean_option(name: str, help_text: str) -> Callable[[Command], Command]:
    """Return an option that is ``true`` or ``false``, and false by default."""
    return click.option(name, default=False, show_default=True, type=click.BOOL, help=help_text)


model_name_option = click.option(
    "--model-name",
    default="cartpole-v1-dqn",
    show_default=True,
    help="Name of the registered model.",
)
new_model_name_option = click.option(
    "--model-name",
    default="",
    help="Name of the registered model.  "
    "[default: made from environment and algorithm, such as cartpole-v1-dqn]",
)
config_option = click.option(
    "--config",
    default="",
    help="YAML file with parameters, such as algo: ppo. Parameters that you pass override it.  "
    "[default: no file]",
)
inference_option = click.option(
    "--inference",
    default="onnx",
    show_default=True,
    type=click.Choice(["onnx", "native"]),
    help="Inference backend. onnx: ONNX graph, without PyTorch. native: SB3 archive.",
)
approval_option = click.option(
    "--approval",
    default="none",
    show_default=True,
    type=click.Choice(["none", "required"]),
    help="required: run the gate, but move the alias only to a version with the tag "
    "approval=approved.",
)
fail_on_reject_option = boolean_option(
    "--fail-on-reject", "Exit with code 1 if no challenger becomes the champion."
)
state_folder_option = click.option(
    "--state-folder",
    default="",
    type=AbsoluteFolder(),
    help="Absolute path of the folder for snapshots and the journal.  "
    "[default: ~/.local/state/mlflow-sb3]",
)
signing_key_option = click.option(
    "--signing-key",
    default="",
    help="PEM file of the Ed25519 private key that signs the version. A relative path is "
    "relative to the project folder.  [default: do not sign]",
)
public_key_option = click.option(
    "--public-key",
    default="",
    help="PEM file of the Ed25519 public key that must have signed the version. A relative path "
    "is relative to the project folder.  [default: do not check signatures]",
)
allow_pickle_option = boolean_option(
    "--allow-pickle",
    "Unpickle files that no trusted key signed, which can run any code. docs/security.md "
    "lists these files.",
)
