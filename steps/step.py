"""What every step is: a click command inside an MLflow run, which fails with one line that says what to do."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from mlflow_sb3.runs import step_run

ALGORITHMS = "a2c, ars, crossq, ddpg, dqn, ppo, ppo_lstm, ppo_mask, qrdqn, sac, td3, tqc or trpo."
_HYPERPARAMS = '{"learning_rate": 1e-3}'
_ENV_KWARGS = '{"g": 9.81}'
_WRAPPERS = '["module:Class", {"module:Class": {"argument": 1}}]'


class Step(click.Command):
    """A command whose whole call is an MLflow run: the one of ``mlflow run``, or one of its own.

    A failure, wrong usage included, is one line on standard error and in the run's tag ``error``, and the run is FAILED.
    After SIGTERM or SIGINT, or when the ``mlflow run`` that started the step is gone, the run is KILLED.
    """

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the command line; wrong usage leaves a FAILED run too."""
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError:
            with _start_run():
                raise

    def invoke(self, ctx: click.Context) -> Any:
        """Call the step inside its run, whose id is ``ctx.obj``."""
        with _start_run() as ctx.obj:
            return super().invoke(ctx)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run as a program: failures are one line, without click's usage in front of it."""
        try:
            return super().main(*args, **kwargs | {"standalone_mode": False})
        except click.ClickException as error:
            click.echo(f"Error: {_describe_error(error)}", err=True)
            sys.exit(error.exit_code)
        except click.Abort as abort:  # so click calls a KeyboardInterrupt
            click.echo(f"Error: {abort.__cause__}.", err=True)
            sys.exit(getattr(abort.__cause__, "exit_code", 1))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run as a program that exits in seconds even if an upload hangs."""
        with step_run.limit_exit_time():
            return self.main(*args, **kwargs)


@contextmanager
def _start_run() -> Iterator[str]:
    """Start the run of the step, and raise every failure as an exception of click."""
    try:
        with step_run.start_step_run(_describe_error) as run_id:
            yield run_id
    except click.ClickException:
        raise
    except Exception as error:
        raise click.ClickException(_describe_error(error)) from error


def _describe_error(error: Exception) -> str:
    """Return the message of an error in one line."""
    if isinstance(error, click.ClickException):
        return " ".join(error.format_message().split())
    return step_run.describe_error(error)


class Json(click.ParamType[Any]):
    """A JSON value of the same kind as an example of it, such as ``{"learning_rate": 1e-3}``."""

    name = "json"

    def __init__(self, example: str) -> None:
        self._example = example
        self._type = type(json.loads(example))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse text; what is parsed already is taken as it is."""
        try:
            parsed = json.loads(value) if isinstance(value, str) else value
        except json.JSONDecodeError as error:
            self.fail(f"{value!r} is no JSON ({error}); write '{self._example}'.", param, ctx)
        if not isinstance(parsed, self._type):
            kind = "object" if self._type is dict else "list"
            self.fail(f"{value!r} is no JSON {kind}; write '{self._example}'.", param, ctx)
        return parsed


class Maybe(click.ParamType[Any]):
    """A value of another type, or nothing: MLproject cannot leave a parameter out."""

    def __init__(self, inner: click.ParamType[Any]) -> None:
        self._inner = inner
        self.name = inner.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Empty text is None; the other type converts all else."""
        return None if value in ("", None) else self._inner.convert(value, param, ctx)


class VersionNumber(click.ParamType[int | None]):
    """The number of a model version, or nothing: MLproject cannot leave a parameter out."""

    name = "integer"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        """Parse a positive number; empty text is None."""
        if value == "":
            return None
        try:
            number = int(value)
        except ValueError:
            number = 0
        if number < 1:
            self.fail(
                f"{value!r} is not the number of a model version; give 1, 2, ..., or an alias instead.",
                param,
                ctx,
            )
        return number


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how to train."""
    options = [
        click.option(
            "--env", default="CartPole-v1", show_default=True, help="Gymnasium id, or module:EnvId."
        ),
        click.option("--algo", default="dqn", show_default=True, help=ALGORITHMS),
        click.option(
            "--timesteps",
            default="",
            type=Maybe(click.IntRange(min=1)),
            help="Steps.  [default: the preset's, or 50000]",
        ),
        click.option(
            "--seed",
            default=0,
            show_default=True,
            type=click.IntRange(min=0),
            help="Of learning and of choosing the agent.",
        ),
        click.option(
            "--hyperparams",
            default="{}",
            show_default=True,
            type=Json(_HYPERPARAMS),
            help="JSON; overrides the preset's keys.",
        ),
        click.option(
            "--preset",
            default="zoo",
            show_default=True,
            type=click.Choice(["zoo", "none"]),
            help="rl_zoo3's, or SB3's defaults.",
        ),
        click.option(
            "--env-kwargs",
            default="{}",
            show_default=True,
            type=Json(_ENV_KWARGS),
            help="JSON; for the environment.",
        ),
        click.option(
            "--wrappers",
            default="[]",
            show_default=True,
            type=Json(_WRAPPERS),
            help="JSON; put around the preset's wrappers.",
        ),
        click.option(
            "--from-model",
            default="",
            help="Go on from this agent, such as models:/cartpole-v1-dqn@champion.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


inference_option = click.option(
    "--inference",
    default="onnx",
    show_default=True,
    type=click.Choice(["onnx", "native"]),
    help="native: by SB3's own file.",
)
"""By what the model acts."""

approval_option = click.option(
    "--approval",
    default="none",
    show_default=True,
    type=click.Choice(["none", "required"]),
    help="required: by the tag approval=approved.",
)
"""Whether a person decides too."""
state_option = click.option(
    "--state-folder",
    default="",
    help="For snapshots and the journal, absolute.  [default: ~/.local/state/mlflow-sb3]",
)
"""Where training keeps what has to outlive its process."""
delivery_option = click.option(
    "--delivery-timeout",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds to wait in the end for a server.",
)
"""How long training waits for a tracking server that is away when it has ended."""
fail_on_reject_option = click.option(
    "--fail-on-reject",
    default=False,
    show_default=True,
    type=bool,
    help="Exit with 1 when nothing was promoted.",
)
"""For pipelines that go on with a new champion alone."""
signing_key_option = click.option(
    "--signing-key",
    default="",
    help="PEM file of an Ed25519 private key to sign with; relative to the project.",
)
"""Who answers for a version."""
public_key_option = click.option(
    "--public-key",
    default="",
    help="PEM file of an Ed25519 key that has to have signed the version; relative to the project.",
)
"""Whose signature versions have to bear."""
