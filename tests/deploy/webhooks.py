"""Webhook deliveries as MLflow sends them."""

from __future__ import annotations

import hmac
import http.client
import json
import time
from base64 import b64encode
from contextlib import closing

SECRET_KEY = b"a secret of the test"
DATA = {"name": "levels", "alias": "champion", "version": "2"}


def alias_event(entity: str = "model_version_alias", action: str = "created", **data: str) -> bytes:
    """Return the body of a delivery, by default for a new version of the alias `champion`."""
    event = {"entity": entity, "action": action, "timestamp": "2026-01-01T00:00:00+00:00"}
    return json.dumps(event | {"data": DATA | data}).encode()


def sign(
    body: bytes, *, key: bytes = SECRET_KEY, age: float = 0.0, timestamp: str = ""
) -> dict[str, str]:
    """Return the headers that MLflow documents for its deliveries.

    Args:
        body: Body of the delivery.
        key: Secret of the webhook.
        age: Age of the timestamp in seconds.
        timestamp: Another timestamp instead.
    """
    delivery_id, timestamp = "0b0c6b4e", timestamp or str(int(time.time() - age))
    signed = f"{delivery_id}.{timestamp}.".encode() + body
    code = b64encode(hmac.digest(key, signed, "sha256")).decode()
    return {
        "X-MLflow-Delivery-Id": delivery_id,
        "X-MLflow-Timestamp": timestamp,
        "X-MLflow-Signature": f"v1,{code}",
    }


def post(port: int, body: bytes, headers: dict[str, str]) -> int:
    """Send a POST request to 127.0.0.1 and return the status of the response."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("POST", "/", body, headers)
        return connection.getresponse().status
