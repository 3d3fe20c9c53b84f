from __future__ import annotations

import shlex
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_sb3.runs import git, heartbeat, lease, previous_attempt

COMMIT = "a" * 40


class Store:
    """Runs as ``mlflow run`` writes them down."""

    def __init__(self) -> None:
        self.client = MlflowClient()
        found = mlflow.get_experiment_by_name("test")
        assert found is not None
        self.experiment = str(found.experiment_id)
        self._clock = 1000

    def run(
        self,
        entry_point: str,
        status: str,
        parent: str = "",
        commit: str = COMMIT,
        **parameters: Any,
    ) -> str:
        self._clock += 1
        tags = {
            previous_attempt.ENTRY_POINT_TAG: entry_point,
            git.COMMIT_TAG: commit,
            previous_attempt.CHANGES_TAG: git.hash_uncommitted_changes(),
        } | ({previous_attempt.PARENT_RUN_TAG: parent} if parent else {})
        run_id: str = self.client.create_run(
            self.experiment, start_time=self._clock, tags=tags
        ).info.run_id
        for key, value in parameters.items():
            self.client.log_param(run_id, key, shlex.quote(str(value)))
        if status != "RUNNING":
            self.client.set_terminated(run_id, status)
        return run_id


@pytest.fixture
def runs(store: str) -> Store:  # noqa: ARG001 a store to have runs in
    return Store()


def begin(runs: Store, **parameters: Any) -> previous_attempt.PreviousAttempt:
    return previous_attempt.continue_previous_attempt(
        runs.run("main", "RUNNING", **parameters), fresh=False
    )


def test_steps_of_an_interrupted_call_are_found_by_entry_point_and_value_and_taken_over(
    runs: Store,
) -> None:
    main = runs.run("main", "KILLED", timesteps="5e4", hyperparams='{"a": 1, "b": [2]}')
    train = runs.run("train", "FINISHED", main, timesteps="50000", hyperparams='{"b":[2],"a":1.0}')

    found = begin(runs, timesteps=50000, hyperparams='{"b": [2], "a": 1}')

    assert found.run_id == main
    reused = found.finished("train", {"timesteps": 50000, "hyperparams": '{"a": 1, "b": [2]}'})
    assert reused is not None
    assert reused.info.run_id == train
    assert found.finished("train", {"timesteps": 50001}) is None
    assert found.finished("log_model", {}) is None
    latest = runs.client.search_runs(
        [runs.experiment], f"tags.`{previous_attempt.CONTINUES_TAG}` = '{main}'"
    )[0]
    assert runs.client.get_run(train).data.tags[previous_attempt.PARENT_RUN_TAG] == latest.info.run_id


@pytest.mark.parametrize(
    ("status", "commit", "seed"),
    [("FINISHED", COMMIT, 1), ("KILLED", "b" * 40, 1), ("KILLED", COMMIT, 2)],
    ids=["finished", "commit", "seed"],
)
def test_a_call_that_finished_or_was_another_is_left_alone(
    runs: Store, status: str, commit: str, seed: int
) -> None:
    main = runs.run("main", status, commit=commit, seed=seed)
    train = runs.run("train", "FINISHED", main, commit=commit, seed=seed)

    found = begin(runs, seed=1)

    assert found.steps == []
    assert runs.client.get_run(train).data.tags[previous_attempt.PARENT_RUN_TAG] == main


def test_only_the_last_call_is_gone_on_with(runs: Store) -> None:
    runs.run("train", "FINISHED", runs.run("main", "KILLED", seed=1), seed=1)
    runs.run("main", "FINISHED", seed=1)

    assert begin(runs, seed=1).steps == []


def test_a_call_that_is_alive_is_left_alone(runs: Store) -> None:
    main = runs.run("main", "RUNNING", seed=1)
    runs.run("train", "FINISHED", main, seed=1)

    with heartbeat.send_heartbeats(main):
        assert begin(runs, seed=1).steps == []


def test_a_chain_of_interrupted_calls_keeps_what_the_first_one_did(runs: Store) -> None:
    first = runs.run("main", "KILLED", seed=1)
    train = runs.run("train", "FINISHED", first, seed=1)
    second = begin(runs, seed=1)
    latest = runs.client.search_runs(
        [runs.experiment], f"tags.`{previous_attempt.CONTINUES_TAG}` = '{second.run_id}'"
    )[0].info.run_id
    runs.client.set_terminated(latest, "KILLED")

    third = begin(runs, seed=1)

    assert third.run_id == latest
    assert [step.info.run_id for step in third.steps] == [train]


def test_a_call_that_was_killed_before_it_took_anything_over_hides_nothing(runs: Store) -> None:
    train = runs.run("train", "FINISHED", runs.run("main", "KILLED", seed=1), seed=1)
    runs.run("main", "FAILED", seed=1)

    assert [step.info.run_id for step in begin(runs, seed=1).steps] == [train]


def test_a_call_that_was_killed_while_it_took_steps_over_hides_nothing(runs: Store) -> None:
    first = runs.run("main", "KILLED", seed=1)
    moved, left = (runs.run(name, "FINISHED", first, seed=1) for name in ("train", "log_model"))
    second = runs.run("main", "FAILED", seed=1)
    runs.client.set_tag(second, previous_attempt.CONTINUES_TAG, first)
    runs.client.set_tag(moved, previous_attempt.PARENT_RUN_TAG, second)

    assert {step.info.run_id for step in begin(runs, seed=1).steps} == {moved, left}


def test_changes_that_were_not_committed_are_another_code(runs: Store) -> None:
    main = runs.run("main", "KILLED", seed=1)
    runs.run("train", "FINISHED", main, seed=1)
    runs.client.set_tag(main, previous_attempt.CHANGES_TAG, "something else")

    assert begin(runs, seed=1).steps == []


def test_a_step_that_never_began_is_called_dead(runs: Store) -> None:
    main = runs.run("main", "FAILED", seed=1)
    step = runs.run("evaluate", "RUNNING", main, seed=1)

    found = begin(runs, seed=1)

    (unfinished,) = found.unfinished("evaluate", {})
    assert unfinished.info.status == runs.client.get_run(step).info.status == "FAILED"


def test_fresh_is_no_difference(runs: Store) -> None:
    runs.run("train", "FINISHED", runs.run("main", "KILLED", seed=1, fresh="true"), seed=1)

    assert len(begin(runs, seed=1, fresh="false").steps) == 1


def test_exclusive_is_no_difference(runs: Store) -> None:
    runs.run("train", "FINISHED", runs.run("main", "KILLED", seed=1, exclusive="true"), seed=1)

    assert len(begin(runs, seed=1, exclusive="false").steps) == 1


def test_calls_that_left_hide_nothing_however_many_there_are(
    runs: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previous_attempt, "MAX_ATTEMPTS", 2)
    main = runs.run("main", "KILLED", seed=1)
    train = runs.run("train", "FINISHED", main, seed=1)
    for _ in range(3):
        runs.client.set_tag(runs.run("main", "FINISHED", seed=1), lease.LEFT, main)

    assert [step.info.run_id for step in begin(runs, seed=1).steps] == [train]


def test_who_holds_the_lease_waits_for_no_call_that_has_to_leave(runs: Store) -> None:
    train = runs.run(
        "train", "FINISHED", runs.run("main", "KILLED", seed=1, exclusive="true"), seed=1
    )
    leaving = runs.run("main", "RUNNING", seed=1, exclusive="true")
    latest = runs.run("main", "RUNNING", seed=1, exclusive="true")

    with heartbeat.send_heartbeats(leaving):
        found = previous_attempt.continue_previous_attempt(latest, fresh=False, exclusive=True)

    assert [step.info.run_id for step in found.steps] == [train]


def test_a_call_outside_of_a_git_clone_goes_on_with_nothing(runs: Store) -> None:
    run = runs.client.create_run(runs.experiment, tags={previous_attempt.ENTRY_POINT_TAG: "main"})

    assert previous_attempt.continue_previous_attempt(run.info.run_id, fresh=False).steps == []
