from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from deploy.server.trial import TrialServer
from mlflow_sb3.runs import heartbeat, lease
from mlflow_sb3.runs.signals import Interrupted
from steps.main import main
from tests.project import people

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture
def run_id(store: str) -> Iterator[str]:  # noqa: ARG001 a store to run in
    """A run that is alive."""
    found = started()
    with heartbeat.heartbeat(found):
        yield found


@pytest.fixture
def other(store: str) -> Iterator[str]:  # noqa: ARG001 a store to run in
    """Another run that is alive."""
    found = started()
    with heartbeat.heartbeat(found):
        yield found


def started() -> str:
    run_id: str = (
        MlflowClient().create_run(mlflow.get_experiment_by_name("test").experiment_id).info.run_id
    )  # type: ignore[union-attr]
    return run_id


def tickets() -> list[str]:
    return [
        str(ticket.run_id)
        for ticket in MlflowClient().search_model_versions("name = 'agent.lease'")
    ]


def test_a_second_run_is_told_who_holds_it_until_that_gives_it_back(
    run_id: str, other: str
) -> None:
    with lease.held("agent", run_id) as held:
        with pytest.raises(lease.TakenError, match=run_id) as taken, lease.held("agent", other):
            pass
        assert taken.value.owner.info.run_id == run_id
        assert tickets() == [run_id]
        held.check()

    with lease.held("agent", other):
        assert tickets() == [other]


def test_leases_of_different_models_do_not_exclude_each_other(run_id: str, other: str) -> None:
    with lease.held("agent", run_id) as one, lease.held("another", other) as two:
        one.check()
        two.check()


@pytest.mark.parametrize(
    "end", [LookupError(), Interrupted(signal.SIGTERM)], ids=["error", "SIGTERM"]
)
def test_it_is_given_back_when_the_work_fails(run_id: str, end: BaseException) -> None:
    with pytest.raises(type(end)), lease.held("agent", run_id):
        raise end

    assert tickets() == []


@pytest.mark.parametrize("end", ["FINISHED", "FAILED", "KILLED", "deleted", "silent"])
def test_it_is_taken_over_when_its_owner_is_over(
    run_id: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "BACK", 1.0)
    owner = started()
    with heartbeat.heartbeat(owner), lease.held("agent", owner):
        number = MlflowClient().search_model_versions("name = 'agent.lease'")[0].version
    MlflowClient().create_model_version(
        "agent.lease", f"runs:/{owner}/lease", owner, await_creation_for=0
    )  # as if it were killed
    if end == "deleted":
        MlflowClient().delete_run(owner)
    elif end == "silent":
        MlflowClient().set_tag(owner, heartbeat.BEAT, "0")
    else:
        MlflowClient().set_terminated(owner, end)

    with lease.held("agent", run_id):
        assert tickets() == [run_id]
        assert (
            int(MlflowClient().search_model_versions("name = 'agent.lease'")[0].version)
            == int(number) + 2
        )


def test_who_lost_it_notices_and_leaves_that_of_the_other(
    run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = started()
    monkeypatch.setattr(heartbeat, "WATCHED", 0.1)
    with lease.held("agent", silent) as lost, lease.held("agent", run_id):
        with pytest.raises(lease.LostError, match=r"agent\.lease was taken from this run"):
            lost.check()
        assert tickets() == [run_id]


def test_a_model_of_that_name_is_left_alone(run_id: str) -> None:
    MlflowClient().create_registered_model("agent.lease")

    with (
        pytest.raises(
            MlflowException, match=r"registered model agent\.lease is no lease.*rename it"
        ),
        lease.held("agent", run_id),
    ):
        pass


def test_main_leaves_with_one_line_while_another_one_is_at_work(run_id: str) -> None:
    with lease.held("cartpole-v1-dqn", run_id):
        result = CliRunner().invoke(main, ["--exclusive", "true"])

    left = mlflow.last_active_run()
    assert left is not None
    assert result.exit_code == 0, result.output
    assert result.output.startswith(
        f"Left: run {run_id} of main is at work on cartpole-v1-dqn since 20"
    )
    assert result.output.count("\n") == 1
    assert left.info.status == "FINISHED"
    assert mlflow.get_run(left.info.run_id).data.tags[lease.LEFT] == run_id
    assert (
        MlflowClient().search_runs(
            [left.info.experiment_id], f"tags.mlflow.parentRunId = '{left.info.run_id}'"
        )
        == []
    )


@pytest.mark.process
def test_who_could_not_give_a_ticket_back_draws_none(
    trial: TrialServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"agent-{uuid.uuid4().hex[:6]}"
    trial.post(
        "2.0/mlflow/registered-models/create", {"name": f"{name}.lease", "description": lease.MARK}
    )

    def joined(right: str) -> tuple[str, str]:
        """A user with that right, who is logged in, and a run of theirs."""
        user = people.join(trial, "edda", tmp_path).name
        trial.grant(user, right, model=f"{name}.lease")
        people.log_in(trial, user, monkeypatch)
        return user, MlflowClient().create_run(MlflowClient().create_experiment(user)).info.run_id

    user, run_id = joined("EDIT")
    with (
        pytest.raises(MlflowException, match=rf"'{user}' lacks MANAGE on .* {name}\.lease"),
        lease.held(name, run_id),
    ):
        pass
    _, run_id = joined("MANAGE")
    with heartbeat.heartbeat(run_id), lease.held(name, run_id):
        drawn = MlflowClient().search_model_versions(f"name = '{name}.lease'")

    assert [(str(ticket.version), ticket.run_id) for ticket in drawn] == [("1", run_id)]
    assert MlflowClient().search_model_versions(f"name = '{name}.lease'") == []
