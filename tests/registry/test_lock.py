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


def held_models() -> list[str]:
    return [model.name for model in MlflowClient().search_registered_models()]


class Repeating(MlflowClient):
    """Calls again, as MLflow does where a connection breaks before the answer comes: the server has done the first call by then."""

    def create_registered_model(self, *args: Any, **kwargs: Any) -> RegisteredModel:
        """Two calls, of which the second is answered."""
        MlflowClient().create_registered_model(*args, **kwargs)
        return super().create_registered_model(*args, **kwargs)


def test_one_holds_it_at_a_time() -> None:
    inside: list[int] = []
    most = []

    def work() -> None:
        with lock.hold_lock("agent"):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == [1] * 4
    assert held_models() == []


def test_locks_of_different_models_do_not_wait_for_each_other() -> None:
    with lock.hold_lock("one"), lock.hold_lock("other"):
        assert sorted(held_models()) == ["one.lock", "other.lock"]


def test_it_is_given_back_when_the_work_fails() -> None:
    with pytest.raises(LookupError), lock.hold_lock("agent"):
        raise LookupError

    assert held_models() == []


def test_whose_call_was_answered_at_the_second_try_alone_holds_it_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lock, "MlflowClient", Repeating)

    start = time.monotonic()
    with lock.hold_lock("agent") as held:
        waited = time.monotonic() - start
        held.check()

    assert waited < lock.LOCK_TIMEOUT / 2
    assert held_models() == []


def test_it_is_taken_from_a_dead_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LOCK_TIMEOUT", 0.5)
    MlflowClient().create_registered_model(
        "agent.lock", description=f"{lock.LOCK_PREFIX}of somebody who was killed"
    )

    start = time.monotonic()
    with lock.hold_lock("agent"):
        waited = time.monotonic() - start

    assert waited > 0.5
    assert held_models() == []


def test_a_model_of_that_name_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LOCK_TIMEOUT", 0.1)
    MlflowClient().create_registered_model("agent.lock")

    with (
        pytest.raises(MlflowException, match=r"Registered model agent\.lock is not a lock.*Rename"),
        lock.hold_lock("agent"),
    ):
        pass
    assert held_models() == ["agent.lock"]


def test_who_lost_it_notices_and_leaves_that_of_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LOCK_TIMEOUT", 0.2)
    with lock.hold_lock("agent") as slow, lock.hold_lock("agent") as other:
        other.check()
        with pytest.raises(MlflowException, match=r"Another process took over agent\.lock"):
            slow.check()

    assert held_models() == []


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "ACQUIRE_TIMEOUT", 0.3)

    with (
        lock.hold_lock("agent"),
        pytest.raises(MlflowException, match=r"Other processes held agent\.lock for 0 s"),
        lock.hold_lock("agent"),
    ):
        pass
