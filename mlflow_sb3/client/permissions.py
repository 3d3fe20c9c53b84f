"""Check the permissions of the user on an MLflow server with basic authentication.

See https://mlflow.org/docs/latest/self-hosting/security/basic-http-auth/ for the permissions.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any, Literal

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request

from mlflow_sb3.client.registry_client import RegistryClient

Permission = Literal["READ", "EDIT", "MANAGE"]

PERMISSION_DENIED_CODE = "PERMISSION_DENIED"
"""Error code of a request that the server denied."""
_LEVELS = ("READ", "USE", "EDIT", "MANAGE")
"""MLflow's permissions. Each permission includes all permissions before it."""
_DENY = "DENY"
"""Permission that an administrator sets to hide a resource from one user."""

_logger = logging.getLogger(__name__)


class MissingPermissionError(MlflowException):
    """The user lacks a permission. The message names the user, the permission and the resource."""

    def __init__(self, message: str) -> None:
        super().__init__(message, error_code=PERMISSION_DENIED)


def check_permission(
    permission: Permission, *, model: str | None = None, experiment: str | None = None
) -> None:
    """Check that the user has a permission on a registered model or on an experiment.

    The check passes if the server has no authentication.

    Args:
        permission: Required permission. ``MANAGE`` includes ``EDIT``, which includes ``READ``.
        model: Name of the registered model.
        experiment: Id of the experiment, if ``model`` is None.

    Raises:
        MissingPermissionError: The user has a lower permission, or none.
    """
    if model is not None:
        kind, resource_id = "registered_model", model
    else:
        kind, resource_id = "experiment", str(experiment)
    held = _get_permission(kind, resource_id)
    if held is not None and not _includes(held, permission):
        raise build_permission_error(
            permission, f"{kind.replace('_', ' ')} {resource_id}", held=held
        )


def check_registration(name: str, permission: Permission = "EDIT") -> None:
    """Check that the user may register a version of a model.

    The check passes if the registered model does not exist, because every user may create one.
    With ``default_permission = NO_PERMISSIONS``, MLflow's server (3.17) gives the same answers for
    a missing model and for a model that the user may not read. The check passes then, and
    the registration itself fails if another user owns the model.

    Args:
        name: Name of the registered model.
        permission: Required permission if the model exists: ``EDIT`` to register a version,
            ``MANAGE`` to promote it as well.

    Raises:
        MissingPermissionError: The user lacks the permission on an existing model.
        MlflowException: The server does not answer, or it answers with another error.
    """
    try:
        RegistryClient().get_registered_model(name)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", PERMISSION_DENIED_CODE):
            raise
        if _get_permission("registered_model", name) == _DENY:
            raise build_permission_error(permission, f"registered model {name}") from error
    else:
        check_permission(permission, model=name)


def build_permission_error(
    permission: Permission,
    resource: str,
    *,
    held: str | None = None,
    remedy: str = "ask its owner or an admin for it",
) -> MissingPermissionError:
    """Return the error for a missing permission.

    Args:
        permission: Permission that the user lacks.
        resource: Resource as it appears in the message, such as ``"experiment 3"``.
        held: Permission that the user has instead.
        remedy: Last part of the message: how to get the permission.
    """
    instead = f", and has {held}" if held in _LEVELS else ""
    return MissingPermissionError(
        f"user {_get_user_name()!r} lacks {permission} on {resource}{instead}; {remedy}."
    )


def is_permission_denied(error: Exception) -> bool:
    """Return whether an MLflow server denied a request, or a permission check failed.

    MLflow raises ``MlflowException`` for most requests and ``requests.HTTPError`` for artifacts.
    """
    status = getattr(getattr(error, "response", None), "status_code", None)
    code = getattr(error, "error_code", None)
    return code == PERMISSION_DENIED_CODE or status == HTTPStatus.FORBIDDEN


def explain_denial(
    error: Exception, permission: Permission | None = None, resource: str | None = None
) -> str | None:
    """Return an error message for a denied request, or None for any other error.

    Args:
        error: Error of a request.
        permission: Permission that the request needs, if the caller knows it.
        resource: Resource of the request, as for ``build_permission_error``.
    """
    if not is_permission_denied(error):
        return None
    if isinstance(error, MissingPermissionError):
        return error.message
    if permission is not None and resource is not None:
        return build_permission_error(permission, resource).message
    denied = str(error).rstrip(".")
    return (
        f"user {_get_user_name()!r} lacks the permission for a request: {denied}; "
        "ask the owner of the resource or an admin for it."
    )


def log_metrics(metrics: dict[str, float], model_id: str) -> None:
    """Log metrics to the active run, and also to a logged model if the user may edit it.

    The metrics of a logged model need ``EDIT`` on the experiment of the model. If the user lacks
    it, a warning is logged, and only the run gets the metrics.

    Args:
        metrics: Values by metric key.
        model_id: Id of the logged model.
    """
    try:
        mlflow.log_metrics(metrics, model_id=model_id)
    except MlflowException as error:
        if error.error_code != PERMISSION_DENIED_CODE:
            raise
        _logger.warning(
            "metrics are logged to the run only: user %r lacks EDIT on the experiment of model %s",
            _get_user_name(),
            model_id,
        )
        mlflow.log_metrics(metrics)


def _includes(held: str, required: Permission) -> bool:
    return held in _LEVELS and _LEVELS.index(held) >= _LEVELS.index(required)


def _get_permission(kind: str, resource_id: str) -> str | None:
    """Return the user's permission on a resource.

    Returns:
        None if the user is an admin, or if the server does not tell, for example because it has no
        authentication.
    """
    user = _get_user()
    if user is None or user["is_admin"]:
        return None
    params = {"username": user["username"], "resource_type": kind, "resource_id": resource_id}
    permission = _get("3.0/mlflow/users/permissions/get", params).get("permission")
    return None if permission is None else str(permission)


def _get_user_name() -> str:
    user = _get_user()
    return "(not logged in)" if user is None else str(user["username"])


def _get_user() -> dict[str, Any] | None:
    """Return the user that sends the requests.

    Returns:
        None if the server has no authentication or rejects the login.
    """
    user: dict[str, Any] | None = _get("2.0/mlflow/users/current", {}).get("user")
    return user


def _get(path: str, params: dict[str, Any]) -> dict[str, Any]:
    """Send a GET request to the server's REST API and return the JSON of the response.

    The result is empty if the registry is a database or if the status of the response is not 200.
    A server without authentication does not know the path and answers with 404.
    """
    uri = mlflow.get_registry_uri()
    if not uri.startswith("http"):
        return {}
    credentials = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
    response = http_request(  # type: ignore[no-untyped-call]
        credentials, f"/api/{path}", "GET", params=params, raise_on_status=False
    )
    answer: dict[str, Any] = response.json() if response.status_code == HTTPStatus.OK else {}
    return answer
