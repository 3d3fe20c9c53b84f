"""Tests of the webhook receiver with real HTTP requests."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from deploy.server import receiver
from deploy.server.receiver import MAX_BODY_BYTES, WebhookReceiver
from tests.deploy.webhooks import SECRET_KEY, alias_event, post, sign
from tests.processes import wait_until


@pytest.fixture
def alias_moved() -> threading.Event:
    return threading.Event()


@pytest.fixture
def port(alias_moved: threading.Event) -> Iterator[int]:
    """Port of a receiver for the alias `champion` of the model `levels`."""
    with WebhookReceiver(
        ("127.0.0.1", 0),
        secret=SECRET_KEY,
        model_name="levels",
        alias="champion",
        alias_moved=alias_moved,
    ) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_a_signed_event_of_the_alias_sets_the_event(
    port: int, alias_moved: threading.Event
) -> None:
    status = post(port, alias_event(), sign(alias_event()))

    assert status == 202
    assert alias_moved.is_set()


def test_a_repeated_delivery_is_accepted(port: int) -> None:
    headers = sign(alias_event())

    assert [post(port, alias_event(), headers) for _ in range(2)] == [202, 202]


@pytest.mark.parametrize(
    "body",
    [
        alias_event(alias="challenger"),
        alias_event(name="other"),
        alias_event(action="deleted"),
        alias_event("registered_model"),
    ],
    ids=["another alias", "another model", "a deleted alias", "another event"],
)
def test_a_signed_event_about_something_else_is_answered_with_204(
    port: int, alias_moved: threading.Event, body: bytes
) -> None:
    status = post(port, body, sign(body))

    assert status == 204
    assert not alias_moved.is_set()


LONG = b" " * (MAX_BODY_BYTES + 1)
DEEP = b"[" * (MAX_BODY_BYTES // 2) + b"]" * (MAX_BODY_BYTES // 2)


def invalid_deliveries() -> dict[str, tuple[bytes, dict[str, str], int]]:
    """Return body, headers and expected status of invalid deliveries, signed now."""
    event, signed = alias_event(), sign(alias_event())
    next_second = str(int(time.time()) + 1)
    return {
        "unsigned": (event, {}, 401),
        "signed with another secret": (event, sign(event, key=b"another"), 401),
        "another body": (alias_event(version="3"), signed, 401),
        "another timestamp": (event, signed | {"X-MLflow-Timestamp": next_second}, 401),
        "another id": (event, signed | {"X-MLflow-Delivery-Id": "another"}, 401),
        "unknown signature version": (event, {"X-MLflow-Signature": "v2,YQ=="}, 401),
        "signature that is not UTF-8": (event, {"X-MLflow-Signature": "v1,\xff"}, 401),
        "old timestamp": (event, sign(event, age=600), 401),
        "future timestamp": (event, sign(event, age=-86400), 401),
        "body too large": (LONG, sign(LONG), 413),
        "length of 5000 digits": (b"", {"Content-Length": "9" * 5000}, 413),
        "no length": (b"", {"Transfer-Encoding": "chunked"}, 411),
        "negative length": (b"", {"Content-Length": "-1"}, 411),
        "not JSON": (b"hello", sign(b"hello"), 400),
        "not UTF-8": (b"\xff\xfe\xfa", sign(b"\xff\xfe\xfa"), 400),
        "not an event": (b"[]", sign(b"[]"), 400),
        "deep JSON": (DEEP, sign(DEEP), 400),
        "timestamp of 5000 digits": (event, sign(event, timestamp="9" * 5000), 400),
    }


@pytest.mark.parametrize("case", invalid_deliveries())
def test_an_invalid_delivery_is_rejected_and_logged_without_its_body(
    port: int, alias_moved: threading.Event, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    body, headers, expected = invalid_deliveries()[case]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest("POST", "/")
    for name, value in (({"Content-Length": str(len(body))} if body else {}) | headers).items():
        connection.putheader(name, value.encode("latin-1"))
    connection.endheaders(body if expected != 413 else None)

    status = connection.getresponse().status

    connection.close()
    assert status == expected
    assert not alias_moved.is_set()
    (line,) = [
        record.getMessage() for record in caplog.records if record.name == "deploy.server.receiver"
    ]
    assert line.startswith("rejected a delivery from 127.0.0.1: it")
    assert "levels" not in line


def test_a_get_request_is_rejected(port: int, alias_moved: threading.Event) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/?champion")

    assert connection.getresponse().status == 501
    assert not alias_moved.is_set()
    connection.close()


def test_a_client_that_sends_slowly_is_disconnected(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "MAX_REQUEST_SECONDS", 0.5)
    start = time.monotonic()

    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as connection,
        suppress(OSError),  # the receiver closes the connection
    ):
        while time.monotonic() - start < 30:
            connection.sendall(b"P")
            time.sleep(0.1)

    assert time.monotonic() - start < 10


def test_too_many_connections_are_closed_and_others_are_answered_again(
    port: int, alias_moved: threading.Event
) -> None:
    with ExitStack() as stack:
        for _ in range(receiver.MAX_CONNECTIONS):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
        with socket.create_connection(("127.0.0.1", port), timeout=60) as refused:
            assert refused.recv(1) == b""

    wait_until(lambda: is_answered(port))
    assert alias_moved.is_set()


def is_answered(port: int) -> bool:
    try:
        return post(port, alias_event(), sign(alias_event())) == 202
    except (OSError, http.client.HTTPException):
        return False
