"""Run steps, promotions and rollbacks in new processes, and kill them before a registry request."""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient

from mlflow_sb3.promotion import rollback
from mlflow_sb3.promotion.gate import Gate
from mlflow_sb3.promotion.promote import PromotionOptions, promote_version
from mlflow_sb3.registry import lock, versions

SHORT_LOCK_TIMEOUT = 1.5
"""Lock timeout of the processes that are killed, in seconds, to make the tests faster."""
KILL_BEFORE = (
    "create",
    "set",
    "update",
    "delete",
    *(("get", "search") if os.environ.get("KILL_BEFORE_READS") else ()),
)
"""Prefixes of the client methods before which a process is killed.

A kill before a read leaves the same state as a kill before the next write. So reads are tested
only on request.
"""

context = get_context("forkserver")
context.set_forkserver_preload(
    [
        __name__,
        "mlflow_sb3.training.training_run",
        *(f"steps.{name}" for name in ("train", "log_model", "promote", "evaluate")),
    ]
)


def promote(number: int) -> None:
    """Promote a version of the model ``levels``."""
    version = versions.find_version("levels", number=number)
    promote_version(version, PromotionOptions(gate=Gate(episodes=60)))


def roll_back() -> None:
    """Roll back the champion of the model ``levels``."""
    rollback.roll_back("levels")


def run_in_process(
    uri: str, work: Callable[[], None], *, kill_before: int | None = None
) -> int | None:
    """Do some work in a new process.

    Args:
        uri: Tracking URI.
        work: Function without arguments. It must be importable.
        kill_before: Number of the registry request before which the process is killed.

    Returns:
        The exit code. It is -9 if the process was killed.
    """
    process = start(uri, work, kill_before=kill_before, lock_timeout=SHORT_LOCK_TIMEOUT)
    process.join()
    exit_code: int | None = process.exitcode
    return exit_code


def start(
    uri: str,
    work: Callable[[], None],
    *,
    kill_before: int | None = None,
    lock_timeout: float = lock.LOCK_TIMEOUT,
    barrier: Any = None,
) -> Any:
    """Start a process that does some work; see ``run_in_process``.

    Args:
        barrier: The process waits for it before the work.
    """
    process = context.Process(target=_work, args=(uri, work, kill_before, lock_timeout, barrier))
    process.start()
    return process


def step(name: str, *options: str, variables: dict[str, str], log: Path) -> int | None:
    """Run a step in a new process that has already imported it.

    Args:
        name: Entry point.
        options: Command line.
        variables: The only variables of MLflow in the process. The fork server has others, which
            an earlier test set.
        log: File for the output.

    Returns:
        The exit code.
    """
    process = context.Process(target=_run_step, args=(name, options, variables, log))
    process.start()
    process.join()
    exit_code: int | None = process.exitcode
    return exit_code


def _run_step(name: str, options: tuple[str, ...], variables: dict[str, str], log: Path) -> None:
    for variable in [name for name in os.environ if name.startswith("MLFLOW_")]:
        del os.environ[variable]
    os.environ.update(variables)
    with log.open("w") as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
        command = getattr(importlib.import_module(f"steps.{name}"), name)
        command(list(options))
        sys.stdout.flush()


def _work(
    uri: str,
    work: Callable[[], None],
    kill_before: int | None,
    lock_timeout: float,
    barrier: Any,
) -> None:
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("levels")
    lock.LOCK_TIMEOUT = lock_timeout
    if barrier is not None:
        barrier.wait()
    with mlflow.start_run():
        if kill_before is not None:
            _kill_before(kill_before)
        work()


def _kill_before(number: int) -> None:
    """Let this process kill itself before a registry request, counted from 1."""
    count = 0

    def add_kill(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return method(*args, **kwargs)

        return call

    for name in dir(MlflowClient):
        if name.startswith(KILL_BEFORE) and ("registered_model" in name or "model_version" in name):
            setattr(MlflowClient, name, add_kill(getattr(MlflowClient, name)))
