"""Receive webhooks of an MLflow server and verify their signatures."""

from __future__ import annotations

import hmac
import json
import logging
import socket
import threading
import time
from base64 import b64encode
from contextlib import suppress
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

MAX_AGE = 300.0
"""Largest accepted difference in seconds between the timestamp of a delivery and the local clock.

MLflow signs a delivery once, and repeats it up to three times within two minutes.
"""
MAX_REQUEST_SECONDS = 20.0
"""How long a client may take to send its request."""
MAX_CONNECTIONS = 32
"""Largest number of connections at once. Further ones are closed."""
_MAX_TIMESTAMP_DIGITS = 12
MAX_BODY_BYTES = 65536
"""Largest accepted request body. The event of an alias has a few hundred bytes."""

_log = logging.getLogger(__name__)


class InvalidDeliveryError(Exception):
    """A request that the receiver answers with an HTTP error and otherwise ignores."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def verify_signature(headers: Message, body: bytes, secret: bytes) -> None:
    """Check that MLflow signed a delivery with the secret, and that the delivery is recent.

    A repeated delivery passes while its timestamp is recent. This is safe, because a delivery only
    causes one more request to the registry.

    Raises:
        InvalidDeliveryError: The signature is wrong, or the timestamp is too old or too new.
    """
    delivery_id = headers.get(WEBHOOK_DELIVERY_ID_HEADER, "")
    timestamp = headers.get(WEBHOOK_TIMESTAMP_HEADER, "")
    signed = f"{delivery_id}.{timestamp}.".encode() + body
    code = b64encode(hmac.digest(secret, signed, "sha256")).decode()
    expected = f"{WEBHOOK_SIGNATURE_VERSION},{code}"
    actual = headers.get(WEBHOOK_SIGNATURE_HEADER, "")
    if not hmac.compare_digest(expected.encode(), actual.encode()):
        raise InvalidDeliveryError(
            HTTPStatus.UNAUTHORIZED, "its signature does not match the secret"
        )
    if not timestamp.isdecimal() or len(timestamp) > _MAX_TIMESTAMP_DIGITS:
        raise InvalidDeliveryError(HTTPStatus.BAD_REQUEST, "its timestamp is not a Unix time")
    if abs(time.time() - int(timestamp)) > MAX_AGE:
        raise InvalidDeliveryError(
            HTTPStatus.UNAUTHORIZED,
            f"its timestamp is more than {MAX_AGE:.0f} s away from the local clock",
        )


class WebhookReceiver(ThreadingHTTPServer):
    """HTTP server that sets an event when a webhook reports a new version for an alias.

    Args:
        address: Host and port to listen on.
        secret: Secret of the webhook.
        model_name: Registered model.
        alias: Alias of the registered model.
        alias_moved: Event to set.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        secret: bytes,
        model_name: str,
        alias: str,
        alias_moved: threading.Event,
    ) -> None:
        super().__init__(address, _DeliveryHandler)
        self.secret = secret
        self.model_name = model_name
        self.alias = alias
        self.alias_moved = alias_moved
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a connection in a thread, or close it if there are too many."""
        if not self._free.acquire(blocking=False):
            _log.warning("closed a connection from %s: there are too many", client_address[0])
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Handle a connection, but for ``MAX_REQUEST_SECONDS`` at most."""
        timer = threading.Timer(MAX_REQUEST_SECONDS, self._interrupt, args=[request])
        timer.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            timer.cancel()
            self._free.release()

    @staticmethod
    def _interrupt(request: socket.socket) -> None:
        with suppress(OSError):  # the connection has ended
            request.shutdown(socket.SHUT_RDWR)


class _DeliveryHandler(BaseHTTPRequestHandler):
    server: WebhookReceiver
    timeout = 10  # Seconds without data after which the connection is closed.

    def do_POST(self) -> None:
        """Answer a delivery: 202 if it reports the alias of this server, 204 for other events."""
        try:
            status = self._handle_delivery(self._read_body())
        except InvalidDeliveryError as error:
            status = error.status
            _log.warning("rejected a delivery from %s: %s", self.client_address[0], error)
        self.send_response(status)
        self.end_headers()

    def _read_body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise InvalidDeliveryError(HTTPStatus.LENGTH_REQUIRED, "it has no valid Content-Length")
        # Python refuses to parse very long numbers, so the number of digits is checked first.
        if len(length) > len(str(MAX_BODY_BYTES)) or int(length) > MAX_BODY_BYTES:
            raise InvalidDeliveryError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"it has more than {MAX_BODY_BYTES} bytes"
            )
        return self.rfile.read(int(length))

    def _handle_delivery(self, body: bytes) -> HTTPStatus:
        verify_signature(self.headers, body, self.server.secret)
        try:
            event = json.loads(body)
        except (RecursionError, ValueError) as error:
            raise InvalidDeliveryError(
                HTTPStatus.BAD_REQUEST, "its body is not valid JSON"
            ) from error
        match event:
            case {
                "entity": "model_version_alias",
                "action": "created",
                "data": {"name": self.server.model_name, "alias": self.server.alias},
            }:
                self.server.alias_moved.set()
                return HTTPStatus.ACCEPTED
            case {"entity": _, "action": _, "data": {}}:
                return HTTPStatus.NO_CONTENT
        raise InvalidDeliveryError(HTTPStatus.BAD_REQUEST, "its body is not an MLflow event")

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Do not log successful requests."""

    def log_error(self, format: str, *args: Any) -> None:  # noqa: A002, ARG002 named by http.server
        """Log a malformed request without any text that the sender chose."""
        _log.warning("rejected a request from %s: it is not a delivery", self.client_address[0])
