from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException

from mlflow_sb3.registry import lock

pytestmark = pytest.mark.usefixtures("store")


def list_models() -> list[str]:
    return [model.name for model in MlflowClient().search_registered_models()]


class RepeatingClient(MlflowClient):
    """Repeats a request, as MLflow does if the connection breaks before the answer."""

    def create_registered_model(self, *args: Any, **kwargs: Any) -> RegisteredModel:
        """Send two requests and return the answer to the second one."""
        MlflowClient().create_registered_model(*args, **kwargs)
        return super().create_registered_model(*args, **kwargs)


def test_one_thread_at_a_time_holds_the_lock() -> None:
    holders: list[int] = []
    counts = []

    def work() -> None:
        with lock.hold_lock("agent"):
            holders.append(1)
            counts.append(len(holders))
            time.sleep(0.05)
            holders.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counts == [1] * 4
    assert list_models() == []


def test_locks_of_different_models_are_independent() -> None:
    with lock.hold_lock("one"), lock.hold_lock("other"):
        assert sorted(list_models()) == ["one.lock", "other.lock"]


def test_the_lock_is_released_after_an_error() -> None:
    with pytest.raises(LookupError, match="failure"), lock.hold_lock("agent"):
        raise LookupError("failure")

    assert list_models() == []


def test_a_repeated_request_gets_the_lock_without_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lock, "MlflowClient", RepeatingClient)

    start = time.monotonic()
    with lock.hold_lock("agent") as held_lock:
        waited = time.monotonic() - start
        held_lock.check()

    assert waited < lock.LOCK_TIMEOUT / 2
    assert list_models() == []


def test_the_lock_of_a_killed_process_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LOCK_TIMEOUT", 0.5)
    description = f"{lock.LOCK_PREFIX}of a killed process"
    MlflowClient().create_registered_model("agent.lock", description=description)

    start = time.monotonic()
    with lock.hold_lock("agent"):
        waited = time.monotonic() - start

    assert waited > 0.5
    assert list_models() == []


def test_a_registered_model_with_the_name_of_the_lock_is_not_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lock, "LOCK_TIMEOUT", 0.1)
    MlflowClient().create_registered_model("agent.lock")

    with (
        pytest.raises(MlflowException, match=r"Registered model agent\.lock is not a lock.*Rename"),
        lock.hold_lock("agent"),
    ):
        pass
    assert list_models() == ["agent.lock"]


def test_a_slow_holder_notices_that_another_process_took_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lock, "LOCK_TIMEOUT", 0.2)
    with lock.hold_lock("agent") as slow, lock.hold_lock("agent") as other:
        other.check()
        with pytest.raises(lock.LockLostError, match=r"This process has lost agent\.lock"):
            slow.check()

    assert list_models() == []


def test_the_wait_for_the_lock_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "ACQUIRE_TIMEOUT", 0.3)

    with (
        lock.hold_lock("agent"),
        pytest.raises(MlflowException, match=r"Other processes held agent\.lock for 0 s"),
        lock.hold_lock("agent"),
    ):
        pass
