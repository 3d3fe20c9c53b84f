"""Define the click command of a step, which runs inside an MLflow run."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from mlflow_sb3.runs import step_run


class Step(click.Command):
    """Command that runs inside an MLflow run: the run of ``mlflow run``, or a new run.

    An error is printed in one line and stored in the tag ``error`` of the run, and the run is
    FAILED. This includes wrong usage. After SIGTERM or SIGINT the run is KILLED.
    """

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Parse the command line. On wrong usage, end the run of the step as FAILED."""
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError:
            with _start_run():
                raise

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command inside its run. The run id is ``ctx.obj``."""
        with _start_run() as ctx.obj:
            return super().invoke(ctx)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Call the command. Print an error in one line, without the usage text of click."""
        try:
            return super().main(*args, **kwargs | {"standalone_mode": False})
        except click.ClickException as error:
            click.echo(f"Error: {_describe_error(error)}", err=True)
            sys.exit(error.exit_code)
        except click.Abort as abort:  # click replaces a KeyboardInterrupt by an Abort
            click.echo(f"Error: {abort.__cause__}.", err=True)
            sys.exit(getattr(abort.__cause__, "exit_code", 1))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run as a program that exits within seconds even if an upload hangs."""
        _relax_garbage_collection()
        with step_run.limit_exit_time():
            return self.main(*args, **kwargs)


def _relax_garbage_collection() -> None:
    """Run the garbage collector less often, not on the modules loaded so far, and not at exit.

    A step imports modules with about a million objects. By default, Python searches them for
    garbage during the imports and again at exit, which takes a fifth of the time of a short step.
    """
    gc.freeze()
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)


@contextmanager
def _start_run() -> Iterator[str]:
    """Start the run of the step, and raise every error as a click exception."""
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
