from __future__ import annotations

import re
from dataclasses import replace

import pytest
from mlflow import MlflowClient

from mlflow_sb3.promotion import evidence_table, rollback, version_history
from mlflow_sb3.promotion.version_history import add_decision
from mlflow_sb3.registry import alias_history, versions
from mlflow_sb3.registry.generated_text import MAX_LENGTH
from mlflow_sb3.registry.model_version import Version
from mlflow_sb3.registry.versions import STATE_TAG
from mlflow_sb3.reports import version_card
from tests.promotion.level_promotions import (
    Levels,
    promote,
    read_description,
    read_promotion_json,
    read_tags,
)
from tests.promotion.test_report_text import EVIDENCE, STORED
from tests.reports.cards import build_card

CARD = build_card().to_markdown()
VERSION = Version("race", 3, "m-1", "9a9a", "d" * 64, "s" * 88)
TABLE = "**reject**: it is worse\n\n| a | b |\n| --- | --- |"


def read_history(levels: Levels, number: int) -> list[str]:
    """Return the lines of a version's history without date, run and mark."""
    line = re.compile(r"^\d{4}-\d\d-\d\d (.*) \(\[run\]", re.MULTILINE)
    return [str(text) for text in line.findall(read_description(levels[number - 1]))]


def read_states(levels: Levels) -> dict[int, str]:
    states = {version.number: read_tags(version).get(STATE_TAG, "") for version in levels}
    return {number: state for number, state in states.items() if state}


def read_model_lines() -> list[str]:
    text = str(MlflowClient().get_registered_model("levels").description)
    times = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d")
    lines = text.replace("&ensp;", "").splitlines()
    return [times.sub("time", line) for line in lines if line]


def test_the_registry_says_what_happened_after_each_decision(levels: Levels) -> None:
    promote(levels[2])
    promote(levels[0])
    promote(levels[4], force_reason="a new track")
    states = read_states(levels)
    rollback.roll_back("levels", why="it fell over")

    assert states == {1: "rejected", 3: "former champion", 5: "champion"}
    assert read_states(levels) == {1: "rejected", 3: "champion", 5: "rolled back"}
    assert read_history(levels, 5) == [
        "rolled back to version 3: it fell over",
        "promoted without a gate: a new track",
    ]
    again, replaced, promoted = read_history(levels, 3)
    assert again == "champion again, because version 5 was rolled back: it fell over"
    assert replaced == "replaced by version 5"
    assert re.fullmatch(
        r"promoted: \S+ vs \S+ \(random policy\), difference at least \+\S+ \(95 %\)", promoted
    )


def test_the_evidence_of_a_version_survives_a_rollback(levels: Levels) -> None:
    promote(levels[2])
    evidence = read_description(levels[2]).partition("---\n\n")[2]
    promote(levels[4])
    rollback.roll_back("levels")

    assert "| mean return |" in evidence
    assert evidence in read_description(levels[2])


def test_a_promoted_version_keeps_its_model_card(levels: Levels) -> None:
    card = read_description(levels[4])

    promote(levels[4], force_reason="the first")
    promote(levels[2])

    description = read_description(levels[4])
    assert card.startswith("**Model card**: PPO agent for Levels-v0")
    assert description.endswith(f"<!-- mlflow-sb3: end -->\n\n{card}")
    assert read_history(levels, 5) == ["promoted without a gate: the first"]


def test_the_registered_model_has_a_table_of_its_champions(levels: Levels) -> None:
    MlflowClient().update_registered_model("levels", "Agents of the race.")
    promote(levels[2], force_reason="the first")
    promote(levels[4], force_reason="a | better one")
    rollback.roll_back("levels", why="it fell over")

    assert read_model_lines() == [
        "Agents of the race.",
        "**champion**: version 3 <!-- mlflow-sb3: champion -->",
        "| version | from (UTC) | until (UTC) | mean return | why |",
        "| --- | --- | --- | --- | --- |",
        "| 3 | time |  |  | champion again, because version 5 was rolled back: it fell over |",
        "| 5 | time | time |  | promoted without a gate: a / better one |",
        "| 3 | time | time |  | promoted without a gate: the first |",
        "<!-- mlflow-sb3: end -->",
    ]


def test_no_tag_that_people_see_is_machine_state(levels: Levels) -> None:
    promote(levels[2], alpha_per_reign=0.05)
    promote(levels[4], alpha_per_reign=0.05)
    rollback.roll_back("levels")

    tags = MlflowClient().get_registered_model("levels").tags
    assert {key for key in tags if not key.startswith("mlflow.")} == set()


def test_text_of_users_in_a_description_is_kept(levels: Levels) -> None:
    MlflowClient().update_model_version("levels", "5", "Trained on the new track.")
    promote(levels[4], force_reason="the first")
    description = read_description(levels[4])
    MlflowClient().update_model_version("levels", "5", f"{description}\n\nApproved by Ann.")

    promote(levels[4], force_reason="again", alias="other")

    text = read_description(levels[4])
    assert text.startswith("Trained on the new track.")
    assert text.endswith("Approved by Ann.")
    assert read_history(levels, 5) == [
        "promoted without a gate: again",
        "promoted without a gate: the first",
    ]


def test_a_champion_that_is_rejected_for_another_alias_stays_champion(levels: Levels) -> None:
    promote(levels[4], alias="staging", force_reason="history")
    promote(levels[2], force_reason="history")

    promote(levels[2], alias="staging")

    assert read_states(levels) == {3: "champion", 5: "staging"}
    assert read_history(levels, 3)[0].startswith("rejected: ")


def test_an_error_is_written_to_the_run_and_the_version(levels: Levels) -> None:
    record = promote(levels[4])

    version_history.write_error(record, ValueError("the disk\n  is full"))

    assert read_promotion_json()["verdict"] == "error"
    assert read_promotion_json()["reason"] == "the disk is full"
    assert read_history(levels, 5)[0] == "error: the disk is full"
    assert read_states(levels) == {5: "champion"}


def test_a_move_by_hand_is_recorded_by_the_next_promotion(levels: Levels) -> None:
    promote(levels[2], force_reason="history")
    versions.set_alias("levels", "champion", 5)

    promote(levels[0])

    assert read_states(levels) == {1: "rejected", 3: "former champion", 5: "champion"}


@pytest.mark.train
def test_a_decision_that_was_not_written_is_written_by_the_next_call(
    levels: Levels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process moves the alias and is killed before it writes on the versions."""
    promote(levels[2])
    with monkeypatch.context() as killed:
        killed.setattr(version_history, "write_decision", lambda record: None)  # noqa: ARG005
        promote(levels[4])
    states = read_states(levels)

    version_history.complete_last_decision(alias_history.read_history("levels", "champion"))

    assert states == {3: "champion"}
    assert read_states(levels) == {3: "former champion", 5: "champion"}
    assert read_history(levels, 5)[0].startswith("promoted: ")
    assert read_history(levels, 3)[0] == "replaced by version 5"


def test_a_decision_that_is_written_again_changes_no_later_state(levels: Levels) -> None:
    promote(levels[2], force_reason="history")
    promote(levels[4], force_reason="history")
    promote(levels[4], alias="staging", force_reason="history")  # the state names one alias only
    promote(levels[2])

    promote(levels[0])

    assert read_states(levels) == {1: "rejected", 3: "rejected", 5: "champion"}


def test_tags_of_earlier_releases_are_deleted(levels: Levels) -> None:
    for key in ("mlflow_sb3.verdict", "mlflow_sb3.reason", versions.ROLLED_BACK_TAG):
        MlflowClient().set_model_version_tag("levels", "5", key, "old")

    promote(levels[4], force_reason="history")

    assert "old" not in read_tags(levels[4]).values()


def test_a_repeated_line_changes_nothing() -> None:
    text = add_decision("", "2026-11-26 rejected", TABLE)

    assert add_decision(text, "2026-11-26 rejected", TABLE) == text


def test_lines_and_evidence_are_newest_first() -> None:
    text = add_decision("mine", "2026-11-26 rejected", TABLE)
    text = add_decision(text, "2026-11-27 replaced", "")
    text = add_decision(text, "2026-11-28 promoted", "**promote**: it is better")

    assert [line for line in text.splitlines() if line and "|" not in line] == [
        "mine",
        "2026-11-28 promoted <!-- mlflow-sb3: promotion -->",
        "2026-11-27 replaced",
        "2026-11-26 rejected",
        "---",
        "**promote**: it is better",
        "---",
        "**reject**: it is worse",
        "<!-- mlflow-sb3: end -->",
    ]


def test_a_description_of_an_earlier_release_is_kept_as_evidence() -> None:
    old = (
        "mine\n\n<!-- mlflow-sb3: promotion -->\n\n**promote** (test): a reason\n\n| a | b |\n"
        "\n<!-- mlflow-sb3: end -->\n\nyours"
    )

    text = add_decision(old, "2026-11-28 rolled back", "")

    assert text.startswith("mine\n\n2026-11-28 rolled back <!--")
    assert "\n\n---\n\n**promote** (test): a reason\n\n| a | b |" in text
    assert text.endswith("\n\nyours")


def test_a_long_description_omits_the_oldest_evidence_and_then_the_oldest_lines() -> None:
    text = "mine"
    for number in range(100, 200):
        text = add_decision(text, f"2026-11-28 line {number}", f"evidence {number} " + "x" * 900)

    assert len(text) <= MAX_LENGTH
    assert "evidence 199" in text
    assert "evidence 190" not in text
    assert "line 150" in text
    for number in range(200, 600):
        text = add_decision(text, f"2026-11-28 line {number}", "")
    assert "line 599" in text
    assert "line 250" not in text
    assert len(text) <= MAX_LENGTH
    assert add_decision("m" * MAX_LENGTH, "2026-11-28 line", "") == "m" * MAX_LENGTH


def test_the_history_stands_before_the_model_card() -> None:
    text = version_card.add_card("mine", CARD, VERSION)

    text = add_decision(text, "2026-11-26 rejected", TABLE)
    text = add_decision(text, "2026-11-28 promoted", "**promote**: it is better")

    assert text.startswith("mine\n\n2026-11-28 promoted <!-- mlflow-sb3: promotion -->")
    assert text.index("it is worse") < text.index("**Model card**: DQN agent for Race-v1 <!--")
    assert text.endswith("| `learning_rate`&ensp; | `0.001` |\n\n<!-- mlflow-sb3: end -->")
    assert text.count("<!-- mlflow-sb3: end -->") == 2


def test_a_long_description_omits_parts_of_the_card_before_evidence() -> None:
    text = add_decision(version_card.add_card("mine", CARD, VERSION), "2026-11-26 first", TABLE)
    lengths = []
    for number in range(30):
        text = add_decision(text, f"2026-11-28 line {number}", f"evidence {number} " + "x" * 600)
        lengths.append((len(text), text.count("evidence"), "**Returns**" in text))

    assert all(length <= MAX_LENGTH for length, _, _ in lengths)
    assert lengths[0][1:] == (1, True)
    assert lengths[-1][2] is False
    assert "it is worse" not in text
    assert "**Model card**: DQN agent for Race-v1" in text
    assert f"| digest&ensp; | `{VERSION.digest}` |" in text
    assert "The whole card is the file `MODEL_CARD.md` of the model." in text


def test_a_short_card_becomes_no_reason_to_forget_the_newest_evidence() -> None:
    user_text = "m" * 3_000
    text = version_card.add_card(user_text, CARD, VERSION)

    text = add_decision(text, "2026-11-26 promoted", "evidence " + "x" * 1_000)

    assert text.startswith(user_text)
    assert "evidence x" in text
    assert "**Model card**" in text
    assert "**Hyperparameters**" not in text


def test_the_table_has_success_rates_if_the_environment_reports_them() -> None:
    evidence = replace(
        EVIDENCE,
        challenger_episodes=replace(EVIDENCE.challenger_episodes, success_rate=0.75),
        champion_episodes=replace(EVIDENCE.champion_episodes, success_rate=0.5),
    )

    with_rates = evidence_table.format_evidence(replace(STORED, evidence=evidence))
    without = evidence_table.format_evidence(replace(STORED, evidence=EVIDENCE))

    assert "| success rate | 0.75 | 0.50 |" in with_rates
    assert "success rate" not in without
