"""One at a time: a lock that everybody who shares a registry can see."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.environment_variables import (
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
)
from mlflow.exceptions import MlflowException

from mlflow_sb3.client import env_vars, permissions

LOCK_TIMEOUT = 30.0
"""Seconds after which a lock that has not changed hands is taken from a holder who must be dead: alive, it takes a second."""
ACQUIRE_TIMEOUT = 300.0
"""Seconds to wait for others who are alive."""
LOCK_PREFIX = "mlflow-sb3 lock "
"""Begins the description of a registered model that is a lock, and nobody's model. (A tag may be gone while the model is deleted.)"""

_IMPATIENT = {MLFLOW_HTTP_REQUEST_MAX_RETRIES.name: "1", MLFLOW_HTTP_REQUEST_TIMEOUT.name: "10"}
"""A holder does not wait for a server for longer than the lease."""
_MISSING = "RESOURCE_DOES_NOT_EXIST"
_HIDDEN = ""
"""Token of a lock that this user cannot read: another user's, or none, where rights are given one by one."""


class LockLostError(MlflowException):
    """The lock was taken away from a holder who was too slow."""


@dataclass(frozen=True)
class PromotionLock:
    """A held lock: a registered model that is called as the locked one with ``.lock``, of which the registry allows one alone."""

    name: str
    token: str

    def check(self) -> None:
        """Refuse to go on when it was taken away.

        Raises:
            LostError: Another holder has it.
        """
        if _holder(self.name) != self.token:
            raise LockLostError(
                f"another process took {self.name} over after {LOCK_TIMEOUT:.0f} s without an answer; call again."
            )


@contextmanager
def hold_lock(name: str) -> Iterator[PromotionLock]:
    """Hold the lock of a registered model; wait for whoever holds it.

    Raises:
        MlflowException: Others held it for five minutes, or a model of somebody's has its name.
    """
    lock = PromotionLock(f"{name}.lock", LOCK_PREFIX + uuid.uuid4().hex)
    _acquire(lock)
    try:
        with env_vars.temporary_env(_IMPATIENT):
            yield lock
    finally:
        _delete(lock.name, lock.token)


def _acquire(lock: PromotionLock) -> None:
    start = since = time.monotonic()
    last: str | None = None
    while time.monotonic() - start < ACQUIRE_TIMEOUT:
        if _created(lock):
            return
        time.sleep(random.uniform(0.1, 0.5))  # noqa: S311 so that those who wait do not come at once
        holder = _holder(lock.name)
        if holder == lock.token:  # MLflow called twice, as the answer to the first call was lost
            return
        if holder != last:
            last, since = holder, time.monotonic()
        elif holder and time.monotonic() - since > LOCK_TIMEOUT:
            _delete(lock.name, holder)
    raise MlflowException(
        f"{lock.name} was held by others for {ACQUIRE_TIMEOUT:.0f} s; call again, or have its owner or an admin delete that registered model."
    )


def _created(lock: PromotionLock) -> bool:
    try:
        MlflowClient().create_registered_model(lock.name, description=lock.token)
    except MlflowException as error:
        if error.error_code not in (
            "RESOURCE_ALREADY_EXISTS",
            _MISSING,
        ):  # MLflow reads the one in its way, which may be gone by then
            raise
        return False
    return True


def _holder(name: str) -> str | None:
    """The token of who holds a lock; None when nobody does, or ``_HIDDEN``."""
    try:
        found = MlflowClient().get_registered_model(name)
    except MlflowException as error:
        if error.error_code == permissions.PERMISSION_DENIED_CODE:
            return _HIDDEN
        if error.error_code != _MISSING:
            raise
        return None
    if not str(found.description).startswith(LOCK_PREFIX):
        raise MlflowException.invalid_parameter_value(
            f"registered model {name} is no lock, and promotions need one of that name for a second; rename it."
        )
    return str(found.description)


def _delete(name: str, token: str) -> None:
    """Delete a lock, if that holder has it still."""
    if _holder(name) != token:
        return
    try:
        MlflowClient().delete_registered_model(name)
    except MlflowException as error:
        if error.error_code == permissions.PERMISSION_DENIED_CODE:
            left = f"registered model {name}, which a process of another user has left behind"
            raise permissions.permission_error(
                "MANAGE", left, remedy="ask its owner or an admin to delete it"
            ) from error
        if error.error_code != _MISSING:
            raise
