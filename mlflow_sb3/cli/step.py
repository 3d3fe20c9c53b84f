"""Define the click command of a step, which runs inside an MLflow run."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
import mlflow

from mlflow_sb3.cli import config_file
from mlflow_sb3.cli.options import OPTION_GROUPS
from mlflow_sb3.runs import step_run

_CONFIG_KEY = "config_file"
"""Key of ``click.Context.meta``: content of the file of ``--config``."""


class Step(click.Command):
    """Command that runs inside an MLflow run: the run of ``mlflow run``, or a new run.

    An error is printed in one line and stored in the tag ``error`` of the run, and the run is
    FAILED. This includes wrong usage. After SIGTERM or SIGINT the run is KILLED.

    If the command has the option ``--config``, the file is logged as ``config.yaml``.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options, and take those that are not set from the file of ``--config``."""
        rest = super().parse_args(ctx, args)
        if path := ctx.params.pop(config_file.OPTION, ""):
            ctx.meta[_CONFIG_KEY] = config_file.read_config(path)
            config_file.apply_config(ctx, ctx.meta[_CONFIG_KEY])
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help of the options in the groups of ``OPTION_GROUPS``."""
        options = {option.name: option for option in self.get_params(ctx)}
        for heading, names in OPTION_GROUPS.items():
            records = [options.pop(name).get_help_record(ctx) for name in names if name in options]
            _write_records(formatter, heading, records)
        _write_records(
            formatter, "Other", [option.get_help_record(ctx) for option in options.values()]
        )

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
            if text := ctx.meta.get(_CONFIG_KEY):
                mlflow.log_text(text, "config.yaml")
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


def _write_records(
    formatter: click.HelpFormatter, heading: str, records: list[tuple[str, str] | None]
) -> None:
    if shown := [record for record in records if record is not None]:
        with formatter.section(heading):
            formatter.write_dl(shown)


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
