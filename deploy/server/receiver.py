"""Receive the webhooks of an MLflow server, and believe those alone that it signed just now."""

from __future__ import annotations

import hmac
import json
import logging
import threading
import time
from base64 import b64encode
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mlflow.webhooks.constants import (
    WEBHOOK_DELIVERY_ID_HEADER,
    WEBHOOK_SIGNATURE_HEADER,
    WEBHOOK_SIGNATURE_VERSION,
    WEBHOOK_TIMESTAMP_HEADER,
)

FRESH = 300.0
"""Seconds that the timestamp of a delivery may be away from this clock; MLflow signs once for all its tries, which may take two minutes."""
LARGEST = 65536
"""Bytes of a delivery; one of an alias has a few hundred."""

_log = logging.getLogger(__name__)


class Refused(Exception):  # noqa: N818 what happened to a delivery, no error of this program
    """A delivery that is answered with an error, and has no other effect."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def check(headers: Message, body: bytes, secret: bytes) -> None:
    """Check who sent a delivery, and when.

    A copy of a delivery that is fresh passes: it makes the registry asked once more, which changes nothing.

    Raises:
        Refused: It is not signed with the secret, or not of now.
    """
    named, stamp = (
        headers.get(WEBHOOK_DELIVERY_ID_HEADER, ""),
        headers.get(WEBHOOK_TIMESTAMP_HEADER, ""),
    )
    code = b64encode(hmac.digest(secret, f"{named}.{stamp}.".encode() + body, "sha256")).decode()
    given = headers.get(WEBHOOK_SIGNATURE_HEADER, "")
    if not hmac.compare_digest(f"{WEBHOOK_SIGNATURE_VERSION},{code}".encode(), given.encode()):
        raise Refused(HTTPStatus.UNAUTHORIZED, "it is not signed with our secret")
    if not stamp.isdecimal() or abs(time.time() - int(stamp)) > FRESH:
        raise Refused(HTTPStatus.UNAUTHORIZED, "it is stale, or one of the two clocks is wrong")


class Receiver(ThreadingHTTPServer):
    """Sets an event when a webhook says that an alias of a model was set."""

    def __init__(
        self,
        address: tuple[str, int],
        *,
        secret: bytes,
        concerns: tuple[str, str],
        moved: threading.Event,
    ) -> None:
        super().__init__(address, _Handler)
        self.secret = secret
        self.concerns = concerns
        self.moved = moved


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    timeout = 10  # seconds that a sender may be silent

    def do_POST(self) -> None:
        """Take a delivery: 202 when it says that our alias was set, 204 when it says something else."""
        try:
            status = self._take(self._body())
        except Refused as refused:
            status = refused.status
            _log.warning("refused a delivery from %s: %s", self.client_address[0], refused)
        self.send_response(status)
        self.end_headers()

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "it is of unknown length")
        if len(length) > len(str(LARGEST)) or int(length) > LARGEST:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"it has more than {LARGEST} bytes")
        return self.rfile.read(int(length))

    def _take(self, body: bytes) -> HTTPStatus:
        check(self.headers, body, self.server.secret)
        try:
            event = json.loads(body)
        except ValueError as error:
            raise Refused(HTTPStatus.BAD_REQUEST, "it is no JSON") from error
        match event:
            case {
                "entity": "model_version_alias",
                "action": "created",
                "data": {"name": name, "alias": alias},
            }:
                if (name, alias) != self.server.concerns:
                    return HTTPStatus.NO_CONTENT
                self.server.moved.set()
                return HTTPStatus.ACCEPTED
            case {"entity": _, "action": _, "data": {}}:
                return HTTPStatus.NO_CONTENT
        raise Refused(HTTPStatus.BAD_REQUEST, "it is no event of MLflow's")

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing of what went well."""

    def log_error(self, format: str, *args: Any) -> None:  # noqa: A002, ARG002 the names of http.server
        """Say nothing that the sender wrote."""
        _log.warning("refused a request from %s: it is no delivery", self.client_address[0])
