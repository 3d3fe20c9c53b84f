"""One exclusive ``main`` at a time for a registered model: a lease in the registry, which whoever comes later finds taken.

Everybody who wants it draws a ticket: a version of the registered model ``<name>.lease``, which the registry numbers, no
number twice. The run of the lowest ticket holds the lease until it ends or its heartbeat runs out. Tickets of dead runs are
taken away by whoever passes by; as no number comes again, nobody takes another one than he meant, however slow he is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run
from mlflow.exceptions import MlflowException

from mlflow_sb3.client import env_vars, permissions, registry_client
from mlflow_sb3.client.retry import CONNECTION_ERRORS, SHORT_RETRIES
from mlflow_sb3.runs import heartbeat

LEFT = "mlflow_sb3.left"
"""Tag of a run of ``main`` that left at once: the run that held the lease."""
MARK = "mlflow-sb3 lease: "
"""Begins the description of a registered model that holds tickets, and nobody's agents."""
_ABOUT = "no model. A version of it is the ticket of a run of main with exclusive=true; it is kept, so that no ticket has a number twice."
_MISSING = "RESOURCE_DOES_NOT_EXIST"


class TakenError(MlflowException):
    """Another run holds the lease."""

    def __init__(self, name: str, owner: Run) -> None:
        super().__init__(f"run {owner.info.run_id} holds {name}.")
        self.owner = owner


class LostError(MlflowException):
    """The lease was taken away from a run that gave no sign of life."""


@dataclass(frozen=True)
class Lease:
    """A held lease, and the run that holds it."""

    name: str
    run_id: str

    def check(self) -> None:
        """Refuse to go on when it was taken away.

        Raises:
            LostError: Others thought that this run was dead.
        """
        if self.run_id not in _tickets(self.name).values():
            raise LostError(
                f"{self.name} was taken from this run, which gave no sign of life for too long; what took it goes on instead."
            )


@contextmanager
def held(name: str, run_id: str) -> Iterator[Lease]:
    """Hold the lease of a registered model, which need not exist yet.

    On a server with users, the first one owns ``<name>.lease``; others need MANAGE on it, and to read the run that holds it.

    Args:
        name: Of the registered model.
        run_id: Of the run that wants it; it has to beat.

    Raises:
        TakenError: Another run holds it.
        MlflowException: A model of somebody's has its name, or this user may not have it.
    """
    lease = Lease(f"{name}.lease", run_id)
    try:
        with _explained(lease.name):
            _take(lease)
        yield lease
    finally:
        with (
            env_vars.temporary_env(SHORT_RETRIES),
            suppress(*CONNECTION_ERRORS),
        ):  # a ticket that stays is worth nothing when its run has ended
            _give_back(lease)


def _take(lease: Lease) -> None:
    _exist(lease.name)
    permissions.check_permission(
        "MANAGE", model=lease.name
    )  # EDIT draws a ticket, and cannot give it back
    _look_at_those_before(lease)  # so that not everybody who leaves uses a number up
    MlflowClient().create_model_version(
        lease.name, f"runs:/{lease.run_id}/lease", lease.run_id, await_creation_for=0
    )
    _look_at_those_before(lease)
    lease.check()


def _exist(name: str) -> None:
    """Make the registered model whose versions are the tickets, unless there is one."""
    client = MlflowClient()
    try:
        client.create_registered_model(name, description=MARK + _ABOUT)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        if not str(client.get_registered_model(name).description).startswith(MARK):
            raise MlflowException.invalid_parameter_value(
                f"registered model {name} is no lease, and exclusive=true needs one of that name; rename it."
            ) from error


def _look_at_those_before(lease: Lease) -> None:
    """Take away the lower tickets of dead runs.

    Raises:
        TakenError: One of them is of a living run.
    """
    for number, run_id in sorted(_tickets(lease.name).items()):
        if run_id == lease.run_id:
            return
        if (owner := _living(run_id)) is not None:
            raise TakenError(lease.name, owner)
        _delete(lease.name, number)


def _tickets(name: str) -> dict[int, str]:
    """The run of every ticket, by its number."""
    found = MlflowClient().search_model_versions(
        registry_client.name_filter(name), max_results=1000
    )
    return {int(one.version): str(one.run_id) for one in found}


def _living(run_id: str) -> Run | None:
    """A run whose process is alive."""
    try:
        run = MlflowClient().get_run(run_id)
    except MlflowException as error:
        if error.error_code != _MISSING:
            raise
        return None
    running = run.info.status == "RUNNING" and run.info.lifecycle_stage == LifecycleStage.ACTIVE
    return run if running and heartbeat.is_alive_after_watching(run) else None


def _give_back(lease: Lease) -> None:
    for number, run_id in _tickets(lease.name).items():
        if run_id == lease.run_id:
            _delete(lease.name, number)


def _delete(name: str, number: int) -> None:
    try:
        MlflowClient().delete_model_version(name, str(number))
    except MlflowException as error:
        if error.error_code != _MISSING:  # another one was faster
            raise


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Say what a user needs whom the server refuses."""
    try:
        yield
    except MlflowException as error:
        if error.error_code != permissions.PERMISSION_DENIED_CODE:
            raise
        what = (
            f"registered model {name}, or READ on the experiment of the run that holds this lease"
        )
        raise permissions.permission_error(
            "MANAGE", what, remedy="ask an admin for both, or leave exclusive=true out"
        ) from error
