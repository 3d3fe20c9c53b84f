"""Tests of permissions and secrets with several users of one server.

The tests share a registered model and may run in any order and at the same time. Each test only
checks its own runs and versions.
"""

from __future__ import annotations

import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Run

from deploy.server.trial import ADMIN, TrialServer
from tests import ROOT
from tests.project import people
from tests.project.people import Person

pytestmark = pytest.mark.postgres

TRUST = ("--allow-pickle", "true")
"""Trust the agent of a colleague, which the machine of the colleague signed."""


FETCH_LINE = re.compile("=== Fetching project from ")
"""Line that MLflow prints before it starts a step."""


@dataclass(frozen=True)
class Team:
    """A model that the manager created with `main`, and users with other permissions on it."""

    trial: TrialServer
    model: str
    manager: Person
    editor: Person
    reader: Person
    folder: Path
    output: str
    """Output of `main`."""


@pytest.fixture(scope="session")
def team(trial: TrialServer, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Team:
    """The team, shared by all workers with the same server."""
    base = tmp_path_factory.getbasetemp()
    folder = (
        base if worker_id == "master" else base.parent
    ) / f"team-{trial.uri.rpartition(':')[2]}"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            manager, editor, reader = (
                people.join(trial, name, folder) for name in ("mana", "edda", "rita")
            )
            names = (manager.name, editor.name, reader.name)
            parameters = ["timesteps=300", "episodes=3", f"model_name={manager.name}"]
            options = [part for parameter in parameters for part in ("-P", parameter)]
            command = [
                "mlflow",
                "run",
                str(ROOT),
                "-e",
                "main",
                "--env-manager",
                "local",
                "--experiment-name",
                manager.name,
                *options,
            ]
            done = manager.place.run(command)
            assert done.returncode == 0, done.stdout + done.stderr
            trial.grant(editor.name, "EDIT", model=manager.name)
            trial.grant(reader.name, "READ", model=manager.name)
            (folder / "output").write_text(done.stdout + done.stderr)
            (folder / "names").write_text(" ".join(names))
    manager, editor, reader = (
        people.at_home(trial, name, folder) for name in (folder / "names").read_text().split()
    )
    return Team(
        trial, manager.name, manager, editor, reader, folder, (folder / "output").read_text()
    )


@pytest.fixture
def admin(team: Team, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    for name, value in team.trial.login_env().items():
        monkeypatch.setenv(name, value)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(team.trial.uri)
    yield MlflowClient()
    mlflow.set_tracking_uri(before)


def promote(team: Team, person: Person, version: str) -> subprocess.CompletedProcess[str]:
    return person.step(
        "promote",
        "--model-name",
        team.model,
        "--version",
        version,
        "--rule",
        "force",
        "--reason",
        "300 steps are few",
    )


def get_error_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the only error line of a failed step."""
    assert done.returncode == 1
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("Error: "))
    assert "Traceback" not in done.stderr
    return line


def missing_permission(team: Team, person: Person, permission: str, *, has: str) -> str:
    return (
        f"Error: user '{person.name}' lacks {permission} on registered model {team.model}, "
        f"and has {has}; ask its owner or an admin for it."
    )


def list_runs(name: str, client: MlflowClient) -> list[Run]:
    """Return the runs of an experiment, the newest first."""
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def test_main_stores_its_model_in_the_bucket(team: Team, admin: MlflowClient) -> None:
    version = admin.get_model_version(team.model, "1")
    model_id = str(version.source).removeprefix("models:/")

    names = [key.rpartition("/")[2] for key in read_bucket(team.trial) if model_id in key]

    assert "Mean reward: " in team.output
    assert {"MLmodel", "agent.json", "policy.onnx"} <= set(names)
    assert not (team.manager.place.folder / "mlruns").exists()


def test_a_reader_evaluates_from_another_machine_by_a_git_tag(
    team: Team, admin: MlflowClient, tmp_path: Path
) -> None:
    admin.set_registered_model_alias(team.model, "best", "1")
    programs = people.virtual_environment(tmp_path / "venv")
    parameters = ["-P", f"model_name={team.model}", "-P", "alias=best", "-P", "episodes=3"]
    options = [
        "-v",
        people.TAG,
        "-e",
        "evaluate",
        "--env-manager",
        "local",
        "--experiment-name",
        team.reader.name,
        *parameters,
    ]
    own = team.reader.place.environment() | {
        "PATH": f"{programs}{os.pathsep}/usr/bin{os.pathsep}/bin"
    }
    token = uuid.uuid4().hex
    address = f"https://reader:{token}@git.example/repository"

    with people.git_server(tmp_path) as uri:
        # A git daemon has no logins. MLflow gets an address with a token, and git replaces the
        # address by that of the daemon.
        own |= {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{uri}.insteadOf",
            "GIT_CONFIG_VALUE_0": address,
        }
        command = [
            str(programs / "python"),
            "-m",
            "mlflow",
            "run",
            f"{address}#{people.SUBFOLDER}",
            *options,
        ]
        done = subprocess.run(
            command, cwd=tmp_path, env=own, capture_output=True, text=True, timeout=600, check=False
        )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Mean reward: " in done.stdout
    assert "metrics are logged to the run only" in done.stderr
    run = next(run for run in list_runs(team.reader.name, admin) if run.info.status == "FINISHED")
    assert "evaluation/mean_return" in run.data.metrics
    assert (
        run.data.tags["mlflow.source.name"] == f"https://git.example/repository#{people.SUBFOLDER}"
    )
    model = admin.get_logged_model(
        str(admin.get_model_version(team.model, "1").source).removeprefix("models:/")
    )
    kept = read_bucket(team.trial) | {
        run.info.run_id: format_run(run).encode() for run in list_runs(team.reader.name, admin)
    }
    kept |= {"model": repr((vars(model), model.tags, model.params)).encode()}
    kept |= {
        line: line.encode()
        for line in (done.stdout + done.stderr).splitlines()
        if not FETCH_LINE.search(line)
    }
    assert [name for name, content in kept.items() if token.encode() in content] == []


def test_a_reader_cannot_register_a_version(team: Team, admin: MlflowClient) -> None:
    trained = str(admin.get_model_version(team.model, "1").run_id)

    done = team.reader.step("log_model", "--run-id", trained, "--model-name", team.model, *TRUST)

    assert get_error_line(done) == missing_permission(team, team.reader, "EDIT", has="READ")
    assert [
        version.version
        for version in admin.search_model_versions(f"name = '{team.model}'")
        if version.run_id == trained
    ] == ["1"]


def test_log_model_logs_nothing_without_edit_on_the_experiment_of_the_training(
    team: Team, admin: MlflowClient
) -> None:
    experiment = f"{team.editor.name}-logs"
    trained = admin.get_run(str(admin.get_model_version(team.model, "1").run_id))

    done = team.editor.step(
        "log_model",
        "--run-id",
        trained.info.run_id,
        "--model-name",
        experiment,
        *TRUST,
        MLFLOW_EXPERIMENT_NAME=experiment,
    )

    assert get_error_line(done) == (
        f"Error: user '{team.editor.name}' lacks EDIT on experiment {trained.info.experiment_id}, "
        "and has READ; ask its owner or an admin for it."
    )
    (run,) = list_runs(experiment, admin)
    assert run.info.status == "FAILED"
    assert list(admin.search_logged_models([run.info.experiment_id])) == []


def test_an_editor_trains_and_logs_but_cannot_promote(team: Team, admin: MlflowClient) -> None:
    trained = team.editor.step("train", "--timesteps", "300")
    run_id = list_runs(team.editor.name, admin)[0].info.run_id
    logged = team.editor.step("log_model", "--run-id", run_id, "--model-name", team.model)
    (own,) = (
        version.version
        for version in admin.search_model_versions(f"name = '{team.model}'")
        if version.run_id == run_id
    )
    refused = promote(team, team.editor, own)

    assert trained.returncode == 0, trained.stderr
    assert logged.returncode == 0, logged.stderr
    assert f"Registered {team.model}/{own} as the challenger" in logged.stdout
    assert get_error_line(refused) == missing_permission(team, team.editor, "MANAGE", has="EDIT")
    assert [run.info.status for run in list_runs(team.editor.name, admin)] == [
        "FAILED",
        "FINISHED",
        "FINISHED",
    ]
    aliases = admin.get_registered_model(team.model).aliases
    assert [alias for alias, number in aliases.items() if str(number) == own] == ["challenger"]
    version = admin.get_model_version(team.model, own)
    assert version.tags["mlflow_sb3.state"] == "challenger"
    assert "mlflow-sb3: promotion" not in str(version.description)


def test_main_refuses_an_editor_before_it_trains(team: Team, admin: MlflowClient) -> None:
    experiment = f"{team.editor.name}-main"

    done = team.editor.step("main", "--model-name", team.model, MLFLOW_EXPERIMENT_NAME=experiment)

    assert get_error_line(done) == missing_permission(team, team.editor, "MANAGE", has="EDIT")
    assert [run.info.status for run in list_runs(experiment, admin)] == ["FAILED"]


def test_a_manager_promotes(team: Team, admin: MlflowClient) -> None:
    done = promote(team, team.manager, "1")

    assert done.returncode == 0, done.stderr
    assert admin.get_registered_model(team.model).aliases["champion"] == "1"
    assert not [
        model.name for model in admin.search_registered_models(f"name = '{team.model}.lock'")
    ]


def test_no_secret_is_stored_or_printed(team: Team, admin: MlflowClient) -> None:
    password = team.trial.read_password(team.manager.name)
    with_password = team.trial.uri.replace("://", f"://{team.manager.name}:{password}@")
    refused = team.manager.step(
        "evaluate", "--model-name", team.model, "--version", "1", MLFLOW_TRACKING_URI=with_password
    )
    unknown = team.manager.step(
        "evaluate", "--model-name", team.model, MLFLOW_TRACKING_PASSWORD=f"not {password}"
    )
    users = [ADMIN, *(person.name for person in (team.manager, team.editor, team.reader))]
    secrets = [
        team.trial.store.secret,
        str(people.database(team.trial).password),
        *(team.trial.read_password(user) for user in users),
    ]

    kept = read_bucket(team.trial) | read_files(team.folder)
    kept |= {str(path): path.read_bytes() for path in team.trial.folder.glob("*.log")}
    kept |= {f"{run.info.run_id}": format_run(run).encode() for run in list_all_runs(admin)}
    kept |= {model.name: repr(model).encode() for model in admin.search_registered_models()}
    kept |= {
        f"{version.name}/{version.version}": repr(version).encode()
        for version in admin.search_model_versions()
    }
    kept |= {
        "output": (
            team.output + refused.stdout + refused.stderr + unknown.stdout + unknown.stderr
        ).encode()
    }

    assert get_error_line(refused).startswith(
        f"Error: URI {with_password.replace(password, '***')} contains credentials, which MLflow"
    )
    assert get_error_line(unknown).startswith(
        f"Error: tracking server {team.trial.uri} rejects the user name or the password. Set "
    )
    assert len(kept) > 40
    assert [
        name
        for name, content in kept.items()
        if any(secret.encode() in content for secret in secrets)
    ] == []


def format_run(run: Run) -> str:
    return repr((run.info.__dict__, run.data.to_dictionary()))


def read_bucket(trial: TrialServer) -> dict[str, bytes]:
    """Return all objects in the bucket. Read again if a run deleted an object meanwhile."""
    try:
        return trial.store.read_objects()
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchKey":
            raise
        return read_bucket(trial)


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of all files in a folder, without files that disappear meanwhile."""
    contents = {}
    for inner, _, names in os.walk(folder):
        for path in (Path(inner, name) for name in names):
            with suppress(FileNotFoundError):
                contents[str(path)] = path.read_bytes()
    return contents


def list_all_runs(client: MlflowClient) -> list[Run]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, max_results=1000))
