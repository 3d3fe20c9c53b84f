from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlflow_sb3.promotion.record import PromotionRecord, hash_seeds

RECORDS = Path(__file__).parent / "records"
"""Records written by version 0.1.0, which had no dataclasses for them."""


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RECORDS / f"schema_2_{name}.json").read_text())
    return content


def test_a_record_of_a_gate_is_written_as_it_was_read() -> None:
    content = read("test")

    assert json.loads(json.dumps(PromotionRecord.from_json(content).to_json())) == content


@pytest.mark.parametrize("name", ["force", "rollback"])
def test_a_record_without_a_gate_keeps_its_keys(name: str) -> None:
    content = read(name)

    record = PromotionRecord.from_json(content)

    assert record.evidence is None
    assert record.to_json().items() >= content.items()
    assert set(record.to_json()) - set(content) <= {"approval", "judge", "earlier"}


def test_earlier_gates_are_records_too() -> None:
    content = read("test") | {"earlier": [read("test")]}

    record = PromotionRecord.from_json(content)

    assert record.earlier == (PromotionRecord.from_json(read("test")),)
    assert json.loads(json.dumps(record.to_json())) == content


def test_attributes_have_the_types_of_the_record() -> None:
    record = PromotionRecord.from_json(read("test"))

    assert str(record.context.challenger) == "levels/2"
    assert record.evidence is not None
    assert record.evidence.gate.episodes == 2
    assert [look.pairs for look in record.evidence.looks] == [2]
    assert record.evidence.looks[0].lower is None
    assert record.evidence.episodes.seed == read("test")["episodes"]["seed"]


@pytest.mark.parametrize("key", ["mean_difference", "verdict", "run_id"])
def test_a_missing_key_is_refused(key: str) -> None:
    content = read("test")
    del content[key]

    with pytest.raises(ValueError, match=key):
        PromotionRecord.from_json(content)


def test_a_value_of_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match=r"challenger\.number"):
        PromotionRecord.from_json(
            read("force") | {"challenger": read("force")["challenger"] | {"number": "last"}}
        )


def test_the_digest_depends_on_the_order_of_the_seeds() -> None:
    assert hash_seeds([1, 2]) == hash_seeds([1, 2])
    assert hash_seeds([1, 2]) != hash_seeds([2, 1])
    assert hash_seeds([1, 2]) != hash_seeds([12])
