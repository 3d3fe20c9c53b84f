from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_sb3.training import provenance


def test_the_rest_of_a_removed_package_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete, rest = tmp_path / "complete-1.0.dist-info", tmp_path / "rest-1.0.dist-info"
    complete.mkdir()
    rest.mkdir()
    (complete / "METADATA").write_text("Name: complete\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)

    facts = provenance.collect_facts(1)

    assert facts.packages["complete"] == "1.0"
    assert None not in facts.packages
    assert provenance.compare_facts(facts, facts) == []
