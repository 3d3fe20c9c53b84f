from __future__ import annotations

import pytest
from mlflow import MlflowClient

from mlflow_sb3.promotion import promotion_run
from mlflow_sb3.promotion.record import PromotionRecord
from mlflow_sb3.registry import alias_history, lock, versions
from tests.conftest import register_level
from tests.promotion.level_promotions import Levels, promote, read_aliases, read_promotion_json


@pytest.mark.train
def test_a_new_champion_during_the_gate_starts_another_gate(
    levels: Levels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The champion changes between the last episode and the lock."""
    promote(levels[2])
    log_record = promotion_run.log_record

    def log_and_change_champion(record: PromotionRecord) -> None:
        log_record(record)
        if record.context.champion == levels[2]:
            versions.set_alias("levels", "champion", 5)

    monkeypatch.setattr(promotion_run, "log_record", log_and_change_champion)
    better = register_level(6)

    promotion = promote(better)

    assert promotion.verdict == "reject"
    assert promotion.context.champion == levels[4]
    assert [(earlier.context.champion, earlier.verdict) for earlier in promotion.earlier] == [
        (levels[2], "promote")
    ]
    assert read_promotion_json()["earlier"][0]["champion"]["number"] == 3
    assert read_aliases() == {"champion": 5}


@pytest.mark.train
@pytest.mark.parametrize("lost_at", [1, 2], ids=["before the alias moves", "after it"])
def test_a_lost_lock_is_acquired_again(
    levels: Levels, monkeypatch: pytest.MonkeyPatch, lost_at: int
) -> None:
    """Another process takes the lock away right before one of the checks."""
    promote(levels[2])
    check, checks = lock.PromotionLock.check, []

    def lose_lock_and_check(held: lock.PromotionLock) -> None:
        checks.append(1)
        if len(checks) == lost_at:
            MlflowClient().delete_registered_model(held.name)
        check(held)

    monkeypatch.setattr(lock.PromotionLock, "check", lose_lock_and_check)

    promotion = promote(levels[4])

    assert promotion.verdict == "promote"
    assert read_aliases() == {"champion": 5, "previous-champion": 3}
    assert alias_history.read_history("levels", "champion").numbers == (3, 5)
    assert len(checks) > lost_at


@pytest.mark.train
def test_a_late_request_does_not_replace_a_new_champion(
    levels: Levels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process takes the lock and promotes before the delayed request sets the alias."""
    promote(levels[0], force_reason="history")
    set_alias = versions.set_alias
    delayed: list[str] = []

    def set_alias_late(name: str, alias: str, number: int) -> None:
        if not delayed:
            delayed.append(alias)
            MlflowClient().delete_registered_model("levels.lock")
            promote(levels[4], force_reason="another process")
        set_alias(name, alias, number)

    monkeypatch.setattr(versions, "set_alias", set_alias_late)

    promotion = promote(levels[2])

    assert delayed == ["champion"]
    assert promotion.verdict == "reject"
    assert [earlier.verdict for earlier in promotion.earlier] == ["promote"]
    assert read_aliases()["champion"] == 5
