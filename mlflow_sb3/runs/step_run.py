"""Run a step inside an MLflow run, and record in that run how the step ended."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import mlflow
from mlflow import MlflowClient
from mlflow.environment_variables import (
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR,
    MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR,
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
)
from mlflow.exceptions import MlflowException

from mlflow_sb3.client import connection, env_vars, permissions, preflight, retry
from mlflow_sb3.runs import heartbeat, parent_process, signals
from mlflow_sb3.runs.signals import Interrupted

ERROR_TAG = "error"
"""Tag of a failed run: the error message in one line."""
TRACEBACK_FILE = "error.txt"
"""Artifact of a failed run: the traceback of the error."""
TRACEBACK_TIMEOUT = 5.0
"""How long to wait for the upload of the traceback, in seconds."""
FINISH_TIMEOUT = 60.0
"""How long to retry to mark a run as FINISHED, in seconds."""
FINISH_INTERVAL = 1.0
"""Pause between two attempts to mark a run as FINISHED, in seconds."""
EXIT_TIMEOUT = 5.0
"""How long a process may take to exit after its step has ended, in seconds."""

STEP_ENV = {
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.name: "false",
    MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR.name: "1",
    MLFLOW_HTTP_REQUEST_MAX_RETRIES.name: "6",
}
"""Defaults of a step.

It shows no bar for each download of a few files. MLflow repeats a request for a minute. Its own
defaults take four.
"""
_FAIL_AT_ONCE_ENV = {
    MLFLOW_HTTP_REQUEST_MAX_RETRIES.name: "0",
    MLFLOW_HTTP_REQUEST_TIMEOUT.name: str(connection.ANSWER_TIMEOUT),
}
"""Settings of MLflow for a step that must end soon, maybe because the server is down."""


def describe_error(error: Exception) -> str:
    """Return the message of an error in one line.

    If the server denied the request, the message says that a permission is missing. The message
    starts with the type of the error if the error is not written for users.
    """
    if denial := permissions.explain_denial(error):
        message = denial
    elif isinstance(error, (MlflowException, OSError, ValueError)):
        message = str(error)
    else:
        message = f"{type(error).__name__}: {error}"
    if message.startswith("Run with id=") and message.endswith("not found"):
        message += f" on {connection.redact_uri(mlflow.get_tracking_uri())}. Check the run id."
    return " ".join(message.split())


@contextmanager
def start_step_run(describe: Callable[[Exception], str] = describe_error) -> Iterator[str]:
    """Start the MLflow run of a step and record how the step ended.

    The run is the run that ``mlflow run`` created, or a new run. If a run is active, the new run is
    its child. It ends as FINISHED, as FAILED
    after an error, or as KILLED after SIGTERM or SIGINT. If ``mlflow run`` started the step and
    then exits, the step stops as after SIGTERM.

    Args:
        describe: Returns the text for the tag ``error`` of a failed run.

    Yields:
        The run id.

    Raises:
        MlflowException: The tracking server cannot be reached.
        Interrupted: A signal asked the step to stop.
    """
    parents = parent_process.INITIAL_PARENT_PIDS if "MLFLOW_RUN_ID" in os.environ else None
    connection.check_connection()
    with (
        ExitStack() as settings,
        env_vars.override_env(
            {name: os.environ.get(name, value) for name, value in STEP_ENV.items()}
        ),
        signals.raise_on_signal(
            before=lambda: settings.enter_context(env_vars.override_env(_FAIL_AT_ONCE_ENV))
        ),
        mlflow.start_run(nested=True) as run,
        _record_end(run.info.run_id, describe),
        heartbeat.send_heartbeats(run.info.run_id, parents=parents),
    ):
        connection.hide_credentials(run)
        heartbeat.fail_stale_runs(run)
        yield run.info.run_id


@contextmanager
def limit_exit_time() -> Iterator[None]:
    """Make the process exit within ``EXIT_TIMEOUT`` seconds after the context ends.

    Before Python exits, it joins the threads of every ``ThreadPoolExecutor``, even daemons. An
    upload to an artifact store that does not answer would keep the process alive for minutes.
    Threads that are not daemons still delay the exit. Use this context only for the last call of a
    program, because it ends the process.
    """
    exit_code = 1
    try:
        yield
        exit_code = 0
    except SystemExit as error:
        exit_code = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise
    finally:
        threading.Thread(
            target=_exit_after_timeout, args=(exit_code,), name="exit", daemon=True
        ).start()


@contextmanager
def _record_end(run_id: str, describe: Callable[[Exception], str]) -> Iterator[None]:
    """Set the final status of the run and the tag with the reason."""
    try:
        with signals.prefer_interrupt():
            yield
            _finish(run_id)
    except Interrupted as interrupted:
        _end(run_id, "KILLED", signals.INTERRUPTED_TAG, interrupted.signal)
        raise
    except Exception as error:
        _end(run_id, "FAILED", ERROR_TAG, describe(error))
        if not isinstance(error, preflight.ArtifactStoreError):
            _log_traceback(run_id, traceback.format_exc())
        raise


def _finish(run_id: str) -> None:
    """Mark the run as FINISHED.

    Retry for ``FINISH_TIMEOUT`` seconds after a connection error, because MLflow does not retry
    if the connection breaks in the middle of an answer.
    """
    try:
        mlflow.end_run()
    except retry.CONNECTION_ERRORS as error:
        if isinstance(error, MlflowException) and error.error_code != "INTERNAL_ERROR":
            raise  # the server refused the request, so a retry does not help
        deadline = time.monotonic() + FINISH_TIMEOUT
        with env_vars.override_env(retry.FAIL_FAST_ENV):
            while not retry.try_call(lambda: MlflowClient().set_terminated(run_id)):
                if time.monotonic() > deadline:
                    raise
                time.sleep(FINISH_INTERVAL)


def _end(run_id: str, status: str, tag: str, reason: str) -> None:
    """End the run with a status and a reason, and ignore connection errors.

    A run that is FINISHED stays FINISHED and gets no reason. A connection error must not replace
    the error that ended the step.
    """
    client = MlflowClient()

    def record_reason() -> bool:
        is_finished = bool(client.get_run(run_id).info.status == "FINISHED")
        if not is_finished:
            client.set_tag(run_id, tag, reason)
        return is_finished

    def end() -> None:
        active = mlflow.active_run()
        if active is not None and active.info.run_id == run_id:
            mlflow.end_run(status)
        else:  # the signal arrived during mlflow.end_run(), or it failed
            client.set_terminated(run_id, status)

    with suppress(*retry.CONNECTION_ERRORS):
        if connection.call_with_short_timeout(record_reason):
            status = "FINISHED"
    with suppress(*retry.CONNECTION_ERRORS):
        connection.call_with_short_timeout(end)


def _log_traceback(run_id: str, text: str) -> None:
    """Log the traceback as an artifact, but wait only ``TRACEBACK_TIMEOUT`` seconds for it.

    The artifact store may be the cause of the error.
    """

    def log() -> None:
        with suppress(Exception):  # each artifact store raises its own exception types
            MlflowClient().log_text(run_id, text, TRACEBACK_FILE)

    with env_vars.override_env(_FAIL_AT_ONCE_ENV):
        thread = threading.Thread(target=log, name="log-traceback", daemon=True)
        thread.start()
        thread.join(TRACEBACK_TIMEOUT)


def _exit_after_timeout(exit_code: int) -> None:
    """End the process if it still runs after ``EXIT_TIMEOUT`` seconds.

    Wait for the threads that are not daemons, as Python does.
    """
    time.sleep(EXIT_TIMEOUT)
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.main_thread():
            thread.join()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
