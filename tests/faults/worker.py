"""Steps, promotions and rollbacks as processes of their own; the latter may be killed before any call of the registry."""

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

LEASE = 1.5
"""Seconds after which these processes take a lock from a dead holder, who may be missed sooner than in life."""

CALLS = (
    "create",
    "set",
    "update",
    "delete",
    *(("get", "search") if os.environ.get("KILL_BEFORE_READS") else ()),
)
"""A kill before a call that reads leaves what a kill before the next one that writes leaves, so that these are enough every day."""

context = get_context("forkserver")
context.set_forkserver_preload(
    [
        __name__,
        "mlflow_sb3.training.training_run",
        *(f"steps.{name}" for name in ("train", "log_model", "promote", "evaluate")),
    ]
)


def promote(number: int) -> str:
    version = versions.find_version("levels", number=number)
    return str(promote_version(version, PromotionOptions(gate=Gate(episodes=60)))["verdict"])


def roll_back() -> str:
    return str(rollback.roll_back("levels")["reason"])


def call(uri: str, work: Callable[[], str], killed_before: int | None = None) -> int | None:
    """Do the work in a new process; returns its exit code, -9 when it was killed before that call of the registry."""
    process = start(uri, work, killed_before, lease=LEASE)
    process.join()
    code: int | None = process.exitcode
    return code


def start(
    uri: str,
    work: Callable[[], str],
    killed_before: int | None = None,
    *,
    lease: float = lock.LOCK_TIMEOUT,
    barrier: Any = None,
) -> Any:
    process = context.Process(target=_run, args=(uri, work, killed_before, lease, barrier))
    process.start()
    return process


def step(name: str, *options: str, variables: dict[str, str], log: Path) -> int | None:
    """Run a step in a new process that has imported it already; returns its exit code.

    Nothing of MLflow's settings reaches it but what ``variables`` say: the server that forks it has those of the test that came first.
    """
    process = context.Process(target=_step, args=(name, options, variables, log))
    process.start()
    process.join()
    code: int | None = process.exitcode
    return code


def _step(name: str, options: tuple[str, ...], variables: dict[str, str], log: Path) -> None:
    for variable in [one for one in os.environ if one.startswith("MLFLOW_")]:
        del os.environ[variable]
    os.environ.update(variables)
    with log.open("w") as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
        command = getattr(importlib.import_module(f"steps.{name}"), name)
        command.main(list(options))
        sys.stdout.flush()


def _run(
    uri: str, work: Callable[[], str], killed_before: int | None, lease: float, barrier: Any
) -> None:
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("levels")
    lock.LOCK_TIMEOUT = lease
    if barrier is not None:
        barrier.wait()
    with mlflow.start_run():
        if killed_before is not None:
            _kill_before(killed_before)
        work()


def _kill_before(number: int) -> None:
    """Count the calls of the registry that begin with ``CALLS``, and let the kernel kill this process before one of them."""
    made = 0

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def counting(*args: Any, **kwargs: Any) -> Any:
            nonlocal made
            made += 1
            if made == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return method(*args, **kwargs)

        return counting

    for name in dir(MlflowClient):
        if name.startswith(CALLS) and ("registered_model" in name or "model_version" in name):
            setattr(MlflowClient, name, counted(getattr(MlflowClient, name)))
