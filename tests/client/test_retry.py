from __future__ import annotations

import logging

import pytest
from mlflow.exceptions import MlflowException
from requests.exceptions import RequestException

from mlflow_sb3.client import retry


def test_a_call_that_returns_has_succeeded() -> None:
    calls: list[int] = []

    assert retry.try_call(lambda: calls.append(1))
    assert calls == [1]


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (MlflowException("no answer"), logging.DEBUG),
        (ConnectionError("no answer"), logging.DEBUG),
        (RequestException("no answer"), logging.DEBUG),
        (LookupError("no answer"), logging.WARNING),
    ],
)
def test_an_error_is_logged_and_not_raised(
    error: Exception, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise error

    with caplog.at_level(logging.DEBUG, logger=retry.__name__):
        assert not retry.try_call(fail)

    (record,) = caplog.records
    assert record.levelno == level
    assert "request failed and will be repeated" in record.message
    assert "no answer" in record.message


def test_an_interrupt_is_raised() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt("by the user")

    with pytest.raises(KeyboardInterrupt, match="by the user"):
        retry.try_call(interrupt)
