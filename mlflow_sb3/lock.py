"""One at a time: a lock that everybody who shares a registry can see."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

LEASE = 10.0
"""Seconds after which a lock that has not changed hands is taken from a holder who must be dead: alive, it takes a second."""
PATIENCE = 300.0
"""Seconds to wait for others who are alive."""


class LostError(MlflowException):
    """The lock was taken away from a holder who was too slow."""


@dataclass(frozen=True)
class Lock:
    """A held lock: a registered model that is called as the locked one with ``.lock``, of which the registry allows one alone."""

    name: str
    token: str

    def check(self) -> None:
        """Refuse to go on when it was taken away.

        Raises:
            LostError: Another holder has it.
        """
        if _holder(self.name) != self.token:
            raise LostError(f"another process took {self.name} over after {LEASE:.0f} s without an answer; call again.")


@contextmanager
def held(name: str) -> Iterator[Lock]:
    """Hold the lock of a registered model; wait for whoever holds it.

    Raises:
        MlflowException: Others held it for five minutes.
    """
    lock = Lock(f"{name}.lock", uuid.uuid4().hex)
    _acquire(lock)
    try:
        yield lock
    finally:
        if _holder(lock.name) == lock.token:
            MlflowClient().delete_registered_model(lock.name)


def _acquire(lock: Lock) -> None:
    client = MlflowClient()
    start = since = time.monotonic()
    last: str | None = None
    while time.monotonic() - start < PATIENCE:
        try:
            client.create_registered_model(lock.name, description=lock.token)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        else:
            return
        time.sleep(random.uniform(0.1, 0.5))  # noqa: S311 so that those who wait do not come at once
        holder = _holder(lock.name)
        if holder != last:
            last, since = holder, time.monotonic()
        elif holder is not None and time.monotonic() - since > LEASE:
            client.delete_registered_model(lock.name)
    raise MlflowException(f"{lock.name} was held by others for {PATIENCE:.0f} s; call again, or delete that registered model.")


def _holder(name: str) -> str | None:
    """The token of who holds a lock; None when nobody does."""
    try:
        return str(MlflowClient().get_registered_model(name).description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
