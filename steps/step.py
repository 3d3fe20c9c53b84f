"""What every step is: a click command inside an MLflow run, which fails with one line that says what to do."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import thread as pools
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import click
import mlflow
from mlflow import MlflowClient
from mlflow.environment_variables import (
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
)
from mlflow.exceptions import MlflowException

from mlflow_sb3.client import connection, env_vars, permissions, preflight, retry
from mlflow_sb3.runs import heartbeat, parent_process, signals
from mlflow_sb3.runs.signals import Interrupted

ALGORITHMS = "a2c, ars, crossq, ddpg, dqn, ppo, ppo_lstm, ppo_mask, qrdqn, sac, td3, tqc or trpo."
_HASTY = {
    MLFLOW_HTTP_REQUEST_MAX_RETRIES.name: "0",
    MLFLOW_HTTP_REQUEST_TIMEOUT.name: str(connection.ANSWER_TIMEOUT),
}
"""Settings for who says how a run ended, perhaps to a server that is the reason, and for who is to stop."""
_PATIENCE = 5.0
"""Seconds that an artifact store has for where an error comes from."""
_INSISTENCE, _PAUSE = 60.0, 1.0
"""Seconds for which a step says that it is done, and between two times."""
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
            with _run():
                raise

    def invoke(self, ctx: click.Context) -> Any:
        """Call the step inside its run, whose id is ``ctx.obj``."""
        with _run() as ctx.obj:
            return super().invoke(ctx)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run as a program: failures are one line, without click's usage in front of it."""
        try:
            return super().main(*args, **kwargs | {"standalone_mode": False})
        except click.ClickException as error:
            click.echo(f"Error: {_line(error)}", err=True)
            sys.exit(error.exit_code)
        except click.Abort as abort:  # so click calls a KeyboardInterrupt
            click.echo(f"Error: {abort.__cause__}.", err=True)
            sys.exit(getattr(abort.__cause__, "exit_code", 1))
        finally:
            _leave_uploads()


@contextmanager
def _run() -> Iterator[str]:
    parents = parent_process.FIRST if "MLFLOW_RUN_ID" in os.environ else None
    try:
        connection.check_connection()
        with (
            ExitStack() as hurry,
            signals.raise_on_signal(
                before=lambda: hurry.enter_context(env_vars.temporary_env(_HASTY))
            ),
            mlflow.start_run() as run,
            _recorded_end(run.info.run_id),
            heartbeat.heartbeat(run.info.run_id, parents=parents),
        ):
            connection.hide_credentials(run.info.run_id)
            heartbeat.fail_stale_runs(run.info.experiment_id)
            yield run.info.run_id
    except click.ClickException:
        raise
    except Exception as error:
        raise click.ClickException(_line(error)) from error


@contextmanager
def _recorded_end(run_id: str) -> Iterator[None]:
    """Say in the run how it ended."""
    try:
        with signals.prefer_interrupt():
            yield
            _end_well(run_id)
    except Interrupted as interrupted:
        _end(run_id, "KILLED", signals.INTERRUPTED_TAG, interrupted.signal)
        raise
    except Exception as error:
        _end(run_id, "FAILED", "error", _line(error))
        if not isinstance(error, preflight.ArtifactStoreError):
            _keep(run_id, traceback.format_exc())
        raise


def _end_well(run_id: str) -> None:
    """Say that the step is done, for a minute if need be: MLflow does not call again when an answer breaks off in the middle."""
    try:
        mlflow.end_run()
    except retry.CONNECTION_ERRORS as error:
        if (
            isinstance(error, MlflowException) and error.error_code != "INTERNAL_ERROR"
        ):  # the server has answered
            raise
        deadline = time.monotonic() + _INSISTENCE
        with env_vars.temporary_env(retry.SHORT_RETRIES):
            while not retry.attempt(lambda: MlflowClient().set_terminated(run_id)):
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE)


def _end(run_id: str, status: str, tag: str, why: str) -> None:
    """End the run, which stays FINISHED when it was; a server that went away is not to hide why."""
    client = MlflowClient()
    with env_vars.temporary_env(_HASTY):
        with suppress(*retry.CONNECTION_ERRORS):
            if client.get_run(run_id).info.status == "FINISHED":
                status = "FINISHED"
            else:
                client.set_tag(run_id, tag, why)
        with suppress(*retry.CONNECTION_ERRORS):
            if mlflow.active_run() is None:  # it came while MLflow was saying that the step is done
                client.set_terminated(run_id, status)
            else:
                mlflow.end_run(status)


def _keep(run_id: str, trace: str) -> None:
    """Log where an error comes from, if that does not take long: an artifact store may be the reason."""

    def log() -> None:
        with suppress(Exception):
            MlflowClient().log_text(run_id, trace, "error.txt")

    with env_vars.temporary_env(_HASTY):
        logging = threading.Thread(target=log, name="error", daemon=True)
        logging.start()
        logging.join(_PATIENCE)


def _leave_uploads() -> None:
    """Let Python end while uploads wait for a silent store: it joins the threads of every pool, also those that a daemon has started."""
    queues = pools._threads_queues
    for thread in [thread for thread in list(queues) if thread.daemon]:
        del queues[thread]  # type: ignore[attr-defined]  # a Mapping in its stub


def _line(error: Exception) -> str:
    """The message in one line; the kind stands before it where no message was written for a user."""
    if denied := permissions.explain_denial(error):
        message = denied
    elif isinstance(error, click.ClickException):
        message = error.format_message()
    elif isinstance(error, (MlflowException, OSError, ValueError)):
        message = str(error)
    else:
        message = f"{type(error).__name__}: {error}"
    return " ".join(message.split())


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
