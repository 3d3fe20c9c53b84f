"""Rights on a tracking server with a login: asked for before any work is done, and named where they are missing."""

from __future__ import annotations

import logging
import re
from typing import Any, Literal

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from mlflow_sb3.client.registry_client import RegistryClient

Permission = Literal["READ", "EDIT", "MANAGE"]

PERMISSION_DENIED_CODE = "PERMISSION_DENIED"
"""Error code of what MLflow refuses; it says no more than that."""
_ORDER = ("READ", "USE", "EDIT", "MANAGE")
_ENDPOINT = re.compile(r"/(?:api|ajax-api)/\d\.\d/(mlflow(?:-artifacts)?/[\w/-]+)")
_NOBODYS = "/"
"""No registry makes a model of that name: who may make none is told so, all others that the name is wrong."""
_READS = ("get", "search", "list")
_WRITES = ("create", "update", "set", "log", "transition", "rename", "finalize")

_logger = logging.getLogger(__name__)


def check_permission(
    right: Permission, *, model: str | None = None, experiment: str | None = None
) -> None:
    """Refuse who lacks a right, where the server knows rights and tells them.

    Args:
        right: ``MANAGE`` includes ``EDIT``, and that includes ``READ``.
        model: Name of a registered model.
        experiment: Id of an experiment.

    Raises:
        MlflowException: The user has less; the message says who lacks what.
    """
    kind, resource = (
        ("registered_model", model) if model is not None else ("experiment", experiment)
    )
    user = _ask("2.0/mlflow/users/current", {}).get("user")
    if user is None or user["is_admin"]:
        return
    question = {"username": user["username"], "resource_type": kind, "resource_id": resource}
    has = _ask("3.0/mlflow/users/permissions/get", question).get("permission")
    if has is not None and (has not in _ORDER or _ORDER.index(has) < _ORDER.index(right)):
        raise permission_error(
            right, f"{kind.replace('_', ' ')} {resource}", user=user["username"], has=has
        )


def check_registration(name: str, right: Permission = "EDIT", *, make: bool = True) -> None:
    """Refuse who may not add a version to a registered model, or make one where there is none of that name.

    Where rights are given one by one, a model that this user may not see and one that is not there look alike, until it is made.

    Args:
        name: Of the registered model.
        right: That is needed; ``MANAGE`` to promote the version too.
        make: Make a model that cannot be seen, for this user, if it is not there; otherwise it passes.

    Raises:
        MlflowException: The user may not; the message names the right.
    """
    client = RegistryClient()
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", PERMISSION_DENIED_CODE):
            raise
        hidden = error.error_code == PERMISSION_DENIED_CODE
        try:
            client.create_registered_model(name if hidden and make else _NOBODYS)
        except MlflowException as denial:
            if denial.error_code == PERMISSION_DENIED_CODE:
                raise permission_error(right, f"registered model {name}") from denial
            if denial.error_code == "RESOURCE_ALREADY_EXISTS":
                check_permission(
                    right, model=name
                )  # it may be this user's, made by another process, or by a call whose answer was lost
            elif denial.error_code != "INVALID_PARAMETER_VALUE":
                raise
    else:
        check_permission(right, model=name)


def permission_error(
    right: str,
    what: str,
    *,
    user: str | None = None,
    has: str | None = None,
    remedy: str = "ask its owner or an admin for it",
) -> MlflowException:
    """The error that says who lacks what, and who can give it."""
    who = f"user {user or _user()!r}"
    held = f", and has {has}" if has in _ORDER else ""
    return MlflowException(
        f"{who} lacks {right} on {what}{held}; {remedy}.", error_code=PERMISSION_DENIED
    )


def explain_denial(error: Exception) -> str | None:
    """What is missing, in one line, where the server refused a call; None for every other error."""
    response = getattr(error, "response", None)  # of requests, as the artifacts have it
    denied = (
        getattr(error, "error_code", None) == PERMISSION_DENIED_CODE
        or getattr(response, "status_code", None) == 403
    )  # noqa: PLR2004 of HTTP
    found = _ENDPOINT.search(str(error))
    if not denied or found is None:
        return None
    call, method = found[1], getattr(getattr(response, "request", None), "method", None)
    what = (
        "registered model" if re.search("registered-models|model-versions", call) else "experiment"
    )
    return f"{permission_error(_needed(call, method), f'the {what} that {call} is about').message}"


def log_metrics(metrics: dict[str, float], model_id: str) -> None:
    """Log metrics on the active run, and on a model where the user may write to it: that takes ``EDIT`` on the model's experiment."""
    try:
        mlflow.log_metrics(metrics, model_id=model_id)
    except MlflowException as error:
        if error.error_code != PERMISSION_DENIED_CODE:
            raise
        _logger.warning(
            "metrics are on this run alone: user %r lacks EDIT on the experiment of model %s",
            _user(),
            model_id,
        )
        mlflow.log_metrics(metrics)


def _needed(call: str, method: str | None) -> str:
    """The right that a call of MLflow's REST API takes; not every error says whether it read, wrote or deleted."""
    verb = call.rpartition("/")[2]
    if method == "GET" or verb.startswith(_READS):
        return "READ"
    if verb.startswith("delete"):
        return "EDIT" if call.startswith("mlflow/runs/") else "MANAGE"
    if method is None and not verb.startswith(_WRITES):
        return "a right"
    return "EDIT"


def _user() -> str:
    return str(
        _ask("2.0/mlflow/users/current", {}).get("user", {}).get("username", "(not logged in)")
    )


def _ask(path: str, question: dict[str, Any]) -> dict[str, Any]:
    """Ask the server; nothing where it knows no users, as a database or a server without a login."""
    uri = mlflow.get_registry_uri()
    if not uri.startswith("http"):
        return {}
    answer = http_request(
        get_default_host_creds(uri), f"/api/{path}", "GET", params=question, raise_on_status=False
    )  # type: ignore[no-untyped-call]
    answered: dict[str, Any] = answer.json() if answer.status_code == 200 else {}  # noqa: PLR2004 of HTTP
    return answered
