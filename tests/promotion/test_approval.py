from __future__ import annotations

from mlflow import MlflowClient

from mlflow_sb3.promotion import rollback
from tests.promotion.level_promotions import Levels, promote, read_aliases


def test_a_promotion_waits_for_approval(levels: Levels) -> None:
    waiting = promote(levels[4], is_approval_required=True)
    aliases_before = read_aliases()
    MlflowClient().set_model_version_tag("levels", "5", "approval", "approved")

    approved = promote(levels[4], is_approval_required=True)

    assert (waiting.verdict, waiting.is_accepted, aliases_before) == ("promote", False, {})
    assert "set the tag approval=approved on version 5 and promote it again" in waiting.reason
    assert (approved.is_accepted, read_aliases()) == (True, {"champion": 5})


def test_a_forced_promotion_needs_approval_too(levels: Levels) -> None:
    MlflowClient().set_model_version_tag("levels", "5", "approval", "rejected")

    promotion = promote(levels[4], is_approval_required=True, force_reason="now")

    assert not promotion.is_accepted
    assert promotion.approval == "rejected"
    assert read_aliases() == {}


def test_a_rollback_removes_the_approval(levels: Levels) -> None:
    promote(levels[2])
    MlflowClient().set_model_version_tag("levels", "5", "approval", "approved")
    promote(levels[4], is_approval_required=True)

    rollback.roll_back("levels")

    assert not promote(levels[4], is_approval_required=True).is_accepted
    assert read_aliases() == {"champion": 3}
