"""Lock a registered model, so that only one process at a time moves its alias or counts its gates.

To lock ``cartpole-v1-dqn``, a process creates the registered model ``cartpole-v1-dqn.lock``. MLflow
lets only one process create it. The process deletes it afterwards.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.environment_variables import (
    MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR,
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
)
from mlflow.exceptions import MlflowException

from mlflow_sb3.client import env_vars, permissions

LOCK_TIMEOUT = 30.0
"""Seconds after which another process may take over a lock.

A process normally holds the lock for about a second, so after this time it was probably killed. If
it still runs, ``PromotionLock.check`` raises ``LockLostError`` in it.
"""
ACQUIRE_TIMEOUT = 300.0
"""How long to wait for the lock while other processes hold it, in seconds."""
LOCK_PREFIX = "mlflow-sb3 lock "
"""Prefix of every token. A token identifies the holder of a lock.

The token is the description of the lock's registered model and not a tag, because MLflow reads a
registered model and its tags in two queries: a lock that is deleted between the queries would seem
to have no token.
"""

_FAIL_FAST_ENV = {
    MLFLOW_HTTP_REQUEST_MAX_RETRIES.name: "3",
    MLFLOW_HTTP_REQUEST_TIMEOUT.name: "5",
    MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR.name: "1",
}
"""Environment variables while the lock is held. A request must fail before ``LOCK_TIMEOUT``.

Four attempts of 5 seconds, with pauses of 0, 3 and 5 seconds at most, take 28 seconds.
"""
_NOT_FOUND_CODE = "RESOURCE_DOES_NOT_EXIST"
_UNREADABLE = ""
"""Stands for the token of a lock that the user may not read.

The lock may belong to another user. It may also not exist, because some servers deny access to
names that do not exist. This process never takes over such a lock.
"""


class LockLostError(MlflowException):
    """This process has lost its lock."""


@dataclass(frozen=True)
class PromotionLock:
    """A lock that this process holds.

    Attributes:
        name: Name of the lock's registered model.
        token: Description of that model. It identifies the holder.
    """

    name: str
    token: str

    def check(self) -> None:
        """Check that this process still holds the lock.

        Raises:
            LockLostError: Another process, maybe of another user, took over the lock, or a user
                deleted it.
        """
        if _read_token(self.name) != self.token:
            raise LockLostError(
                f"This process has lost {self.name}. It held the lock for more than "
                f"{LOCK_TIMEOUT:.0f} s and another process took it over, or a user deleted it. "
                "Call the step again."
            )


@contextmanager
def hold_lock(name: str) -> Iterator[PromotionLock]:
    """Wait until the lock of a registered model is free, and hold it inside the context.

    Args:
        name: Name of the registered model to lock.

    Raises:
        MlflowException: Other processes held the lock for ``ACQUIRE_TIMEOUT``, the user has no
            permission to read it or to delete the lock of a killed process, or a registered model
            that is not a lock has the lock's name.
    """
    lock = PromotionLock(f"{name}.lock", LOCK_PREFIX + uuid.uuid4().hex)
    _acquire(lock)
    with env_vars.override_env(_FAIL_FAST_ENV):
        try:
            yield lock
        finally:
            _release(lock.name, lock.token)


def _acquire(lock: PromotionLock) -> None:
    start = last_change = time.monotonic()
    last_token: str | None = None
    while time.monotonic() - start < ACQUIRE_TIMEOUT:
        if _try_create(lock):
            return
        # A random pause, so that waiting processes do not retry at the same moment.
        time.sleep(random.uniform(0.1, 0.5))  # noqa: S311
        token = _read_token(lock.name)
        if token == lock.token:  # the answer to _try_create was lost, and MLflow repeated it
            return
        if token != last_token:
            last_token, last_change = token, time.monotonic()
        elif token and time.monotonic() - last_change > LOCK_TIMEOUT:
            _release(lock.name, token)
    raise MlflowException(
        f"Other processes held {lock.name} for {ACQUIRE_TIMEOUT:.0f} s, or you may not read it. "
        "Call the step again, or let the owner or an admin delete that registered model."
    )


def _try_create(lock: PromotionLock) -> bool:
    """Create the lock's registered model, and return whether that succeeded."""
    try:
        MlflowClient().create_registered_model(lock.name, description=lock.token)
    except MlflowException as error:
        # To write its error message, MLflow reads the existing model. If that model was deleted
        # meanwhile, the code is RESOURCE_DOES_NOT_EXIST.
        if error.error_code not in ("RESOURCE_ALREADY_EXISTS", _NOT_FOUND_CODE):
            raise
        return False
    return True


def _read_token(name: str) -> str | None:
    """Return the token of the holder, None if the lock is free, or ``_UNREADABLE``."""
    try:
        model = MlflowClient().get_registered_model(name)
    except MlflowException as error:
        if error.error_code == permissions.PERMISSION_DENIED_CODE:
            return _UNREADABLE
        if error.error_code != _NOT_FOUND_CODE:
            raise
        return None
    token = str(model.description)
    if not token.startswith(LOCK_PREFIX):
        raise MlflowException.invalid_parameter_value(
            f"Registered model {name} is not a lock, but promotions need that name for a lock. "
            "Rename the registered model."
        )
    return token


def _release(name: str, token: str) -> None:
    """Delete the lock if the holder with this token still has it."""
    if _read_token(name) != token:
        return
    try:
        MlflowClient().delete_registered_model(name)
    except MlflowException as error:
        if error.error_code == permissions.PERMISSION_DENIED_CODE:
            raise permissions.build_permission_error(
                "MANAGE",
                f"registered model {name}, which a killed process of another user created",
                remedy="ask its owner or an admin to delete it",
            ) from error
        if error.error_code != _NOT_FOUND_CODE:
            raise
