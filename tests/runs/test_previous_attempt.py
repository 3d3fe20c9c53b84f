from __future__ import annotations

import shlex
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_sb3.runs import git, heartbeat, previous_attempt, signals
from mlflow_sb3.runs.previous_attempt import (
    CHANGES_TAG,
    CONTINUES_TAG,
    ENTRY_POINT_TAG,
    PARENT_RUN_TAG,
    PreviousAttempt,
)

COMMIT = "a" * 40


class RunStore:
    """Creates runs as ``mlflow run`` does."""

    def __init__(self) -> None:
        self.client = MlflowClient()
        experiment = mlflow.get_experiment_by_name("test")
        assert experiment is not None
        self.experiment_id = str(experiment.experiment_id)
        self._clock = 1000

    def create(
        self,
        entry_point: str,
        status: str,
        *,
        parent: str = "",
        commit: str = COMMIT,
        **parameters: Any,
    ) -> str:
        """Create a run and return its id."""
        self._clock += 1
        tags = {
            ENTRY_POINT_TAG: entry_point,
            git.COMMIT_TAG: commit,
            CHANGES_TAG: git.hash_uncommitted_changes(),
        } | ({PARENT_RUN_TAG: parent} if parent else {})
        run = self.client.create_run(self.experiment_id, start_time=self._clock, tags=tags)
        run_id = str(run.info.run_id)
        for key, value in parameters.items():
            self.client.log_param(run_id, key, shlex.quote(str(value)))
        if status != "RUNNING":
            self.client.set_terminated(run_id, status)
        return run_id

    def call_main(self, **parameters: Any) -> tuple[str, PreviousAttempt]:
        """Start ``main``; return its run id and the attempt that it continues."""
        run_id = self.create("main", "RUNNING", **parameters)
        return run_id, previous_attempt.continue_previous_attempt(run_id, fresh=False)

    def get_parent(self, run_id: str) -> str:
        return str(self.client.get_run(run_id).data.tags[PARENT_RUN_TAG])


@pytest.fixture
def runs(store: str, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    """A store for runs. The digest is constant, so that files may change while the test runs."""
    monkeypatch.setattr(git, "hash_uncommitted_changes", lambda: "digest")
    return RunStore()


def get_step_ids(attempt: PreviousAttempt) -> list[str]:
    return [step.info.run_id for step in attempt.steps]


def test_a_finished_step_is_found_by_entry_point_and_parameter_values(runs: RunStore) -> None:
    hyperparams = '{"a": 1, "b": [2]}'
    main = runs.create("main", "KILLED", timesteps="5e4", hyperparams=hyperparams)
    train = runs.create(
        "train", "FINISHED", parent=main, timesteps="50000", hyperparams='{"b":[2],"a":1.0}'
    )

    latest, attempt = runs.call_main(timesteps=50000, hyperparams='{"b": [2], "a": 1}')

    step = attempt.find_finished_step("train", {"timesteps": 50000, "hyperparams": hyperparams})
    assert attempt.run_id == main
    assert step is not None
    assert step.info.run_id == train
    assert attempt.find_finished_step("train", {"timesteps": 50001}) is None
    assert attempt.find_finished_step("log_model", {}) is None
    assert runs.client.get_run(latest).data.tags[CONTINUES_TAG] == main
    assert runs.get_parent(train) == latest


@pytest.mark.parametrize(
    ("status", "commit", "seed"),
    [("FINISHED", COMMIT, 1), ("KILLED", "b" * 40, 1), ("KILLED", COMMIT, 2)],
    ids=["finished", "commit", "seed"],
)
def test_a_finished_or_different_call_is_not_continued(
    runs: RunStore, status: str, commit: str, seed: int
) -> None:
    main = runs.create("main", status, commit=commit, seed=seed)
    train = runs.create("train", "FINISHED", parent=main, commit=commit, seed=seed)

    _, attempt = runs.call_main(seed=1)

    assert attempt.steps == []
    assert runs.get_parent(train) == main


def test_no_call_before_a_finished_one_is_continued(runs: RunStore) -> None:
    killed = runs.create("main", "KILLED", seed=1)
    runs.create("train", "FINISHED", parent=killed, seed=1)
    runs.create("main", "FINISHED", seed=1)

    _, attempt = runs.call_main(seed=1)

    assert attempt.steps == []


def test_a_running_call_is_not_continued(runs: RunStore) -> None:
    main = runs.create("main", "RUNNING", seed=1)
    runs.create("train", "FINISHED", parent=main, seed=1)

    with heartbeat.send_heartbeats(main):
        _, attempt = runs.call_main(seed=1)

    assert attempt.steps == []


def test_a_fresh_call_continues_nothing(runs: RunStore) -> None:
    main = runs.create("main", "KILLED", seed=1)
    runs.create("train", "FINISHED", parent=main, seed=1)
    latest = runs.create("main", "RUNNING", seed=1)

    assert previous_attempt.continue_previous_attempt(latest, fresh=True).steps == []


def test_the_steps_of_the_first_of_three_calls_are_kept(runs: RunStore) -> None:
    first = runs.create("main", "KILLED", seed=1)
    train = runs.create("train", "FINISHED", parent=first, seed=1)
    second, _ = runs.call_main(seed=1)
    runs.client.set_terminated(second, "KILLED")

    _, attempt = runs.call_main(seed=1)

    assert attempt.run_id == second
    assert get_step_ids(attempt) == [train]


def test_a_call_that_was_killed_before_it_took_over_steps_is_skipped(runs: RunStore) -> None:
    main = runs.create("main", "KILLED", seed=1)
    train = runs.create("train", "FINISHED", parent=main, seed=1)
    runs.create("main", "FAILED", seed=1)

    _, attempt = runs.call_main(seed=1)

    assert get_step_ids(attempt) == [train]


def test_no_step_is_lost_if_a_call_is_killed_while_it_takes_over_steps(runs: RunStore) -> None:
    first = runs.create("main", "KILLED", seed=1)
    moved = runs.create("train", "FINISHED", parent=first, seed=1)
    left = runs.create("log_model", "FINISHED", parent=first, seed=1)
    second = runs.create("main", "FAILED", seed=1)
    runs.client.set_tag(second, CONTINUES_TAG, first)
    runs.client.set_tag(moved, PARENT_RUN_TAG, second)

    _, attempt = runs.call_main(seed=1)

    assert set(get_step_ids(attempt)) == {moved, left}


def test_a_call_with_other_uncommitted_changes_is_not_continued(runs: RunStore) -> None:
    main = runs.create("main", "KILLED", seed=1)
    runs.create("train", "FINISHED", parent=main, seed=1)
    runs.client.set_tag(main, CHANGES_TAG, "another digest")

    _, attempt = runs.call_main(seed=1)

    assert attempt.steps == []


def test_a_step_that_never_started_is_marked_as_failed(runs: RunStore) -> None:
    main = runs.create("main", "FAILED", seed=1)
    step = runs.create("evaluate", "RUNNING", parent=main, seed=1)

    _, attempt = runs.call_main(seed=1)

    (unfinished,) = attempt.find_unfinished_steps("evaluate", {})
    assert unfinished.info.status == runs.client.get_run(step).info.status == "FAILED"


@pytest.mark.parametrize("parameter", ["fresh", "public_key", "allow_pickle"])
def test_parameters_that_do_not_change_the_result_are_ignored(
    runs: RunStore, parameter: str
) -> None:
    main = runs.create("main", "KILLED", seed=1, **{parameter: "true"})
    runs.create("train", "FINISHED", parent=main, seed=1)

    _, attempt = runs.call_main(seed=1, **{parameter: "false"})

    assert len(attempt.steps) == 1


def test_a_limited_number_of_calls_is_searched(
    runs: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = runs.create("main", "KILLED", seed=1)
    runs.create("train", "FINISHED", parent=main, seed=1)
    runs.create("main", "FAILED", seed=1)
    monkeypatch.setattr(previous_attempt, "MAX_ATTEMPTS", 2)  # the new call is one of them

    _, attempt = runs.call_main(seed=1)

    assert attempt.steps == []


def test_a_call_outside_of_a_git_clone_continues_nothing(runs: RunStore) -> None:
    run = runs.client.create_run(runs.experiment_id, tags={ENTRY_POINT_TAG: "main"})

    assert previous_attempt.continue_previous_attempt(run.info.run_id, fresh=False).steps == []


def test_only_interrupted_steps_are_marked_as_killed(runs: RunStore) -> None:
    main = runs.create("main", "RUNNING")
    interrupted = runs.create("train", "FAILED", parent=main)
    failed = runs.create("train", "FAILED", parent=main)
    runs.client.set_tag(interrupted, signals.INTERRUPTED_TAG, "SIGINT")

    previous_attempt.mark_steps_killed(main)

    assert runs.client.get_run(interrupted).info.status == "KILLED"
    assert runs.client.get_run(failed).info.status == "FAILED"
