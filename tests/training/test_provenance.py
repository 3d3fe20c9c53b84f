from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run

from mlflow_sb3.runs import git
from mlflow_sb3.training import provenance
from mlflow_sb3.training.provenance import INEXACT_TAG
from mlflow_sb3.training.training_record import PolicyDigests, TrainingRecord
from tests import ROOT
from tests.training.interrupted_runs import CONFIG

FACTS = provenance.collect_facts(1)
RECORD = TrainingRecord(CONFIG, FACTS, PolicyDigests(kept="a", last="b"))


def make_run(params: dict[str, Any], tags: dict[str, str] | None = None) -> Run:
    with mlflow.start_run(tags=tags) as run:
        mlflow.log_params(params)
    return mlflow.get_run(run.info.run_id)


def test_the_facts_name_this_project_and_its_packages() -> None:
    commit = git.run_git("rev-parse", "HEAD")

    assert FACTS.commit == (None if commit is None else commit.decode())
    assert (ROOT / "MLproject").exists()
    assert FACTS.packages["torch"]
    assert FACTS.cpu


def test_an_incompletely_removed_package_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete, remains = tmp_path / "complete-1.0.dist-info", tmp_path / "remains-1.0.dist-info"
    complete.mkdir()
    remains.mkdir()
    (complete / "METADATA").write_text("Name: complete\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)

    facts = provenance.collect_facts(1)

    assert facts.packages["complete"] == "1.0"
    assert None not in facts.packages


def test_equal_facts_have_no_differences() -> None:
    assert provenance.compare_facts(FACTS, provenance.collect_facts(1)) == []


def test_different_facts_and_packages_are_named() -> None:
    packages = FACTS.packages | {"torch": "1.0", "removed": "2.0"}
    before = replace(FACTS, cpu="another", torch_threads=4, packages=packages)

    differences = provenance.compare_facts(before, FACTS)

    assert differences == [
        f"CPU was another, and is {FACTS.cpu}",
        "thread count was 4, and is 1",
        "package removed was 2.0, and is None",
        f"package torch was 1.0, and is {FACTS.packages['torch']}",
    ]


@pytest.mark.usefixtures("store")
def test_a_different_hyperparameter_is_named_and_the_preset_is_not() -> None:
    run = make_run({"sb3/gamma": 0.9, "sb3/preset": "rl_zoo3"})
    new_run = make_run({"sb3/gamma": 0.5, "sb3/preset": "none"})

    differences = provenance.list_differences(run, RECORD, new_run, RECORD)

    assert differences == [
        "hyperparameter gamma was 0.9 in the parameters of the run, and is 0.5 now"
    ]


@pytest.mark.usefixtures("store")
def test_a_resumed_run_that_is_not_exact_is_named() -> None:
    run = make_run({}, tags={INEXACT_TAG: "another CPU"})

    differences = provenance.list_differences(run, RECORD, make_run({}), RECORD)

    assert differences == [f"run {run.info.run_id} was resumed and is not exact: another CPU"]
