"""The examples of `deploy/schedules/`: each checked by the tool that it is for, and the crontab run by cron."""

from __future__ import annotations

import getpass
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from mlflow import MlflowClient

from mlflow_sb3.runs import heartbeat, lease
from tests import ROOT
from tests.faults.test_main import snapshots
from tests.processes import PATIENCE, until
from tests.project.conftest import Place

FOLDER = ROOT / "deploy" / "schedules"
CALLS = ("crontab", "mlflow-sb3.service", "github-actions.yml", "cronjob.yaml")
"""The files that call main."""
AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]


def check(*command: str) -> str:
    """Run a tool that has to be content, from beside this Python or from the system; returns all that it says."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}{os.pathsep}/usr/sbin"
    done = subprocess.run(
        command,
        env=os.environ | {"PATH": path},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", CALLS)
def test_an_example_calls_main_with_parameters_that_it_has_and_exclusively(name: str) -> None:
    known = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]["main"]["parameters"]
    given = re.findall(r"-P (\w+)=", (FOLDER / name).read_text())

    assert {"timesteps", "seed", "exclusive"} <= set(given) <= set(known)
    assert "-P exclusive=true" in (FOLDER / name).read_text()


@pytest.mark.parametrize("name", CALLS)
def test_an_example_names_an_experiment_since_nobody_but_the_admin_may_write_to_default(
    name: str,
) -> None:
    assert (
        len(
            re.findall(
                r"^[^#\n]*MLFLOW_EXPERIMENT_NAME(?:=|: |, value: )nightly\b",
                (FOLDER / name).read_text(),
                re.MULTILINE,
            )
        )
        == 1
    )


def test_the_page_names_every_file_but_itself() -> None:
    page = (FOLDER / "README.md").read_text()
    files = {path.name for path in FOLDER.iterdir()} - {"README.md", "Dockerfile.dockerignore"}

    assert {name for name in files if f"({name})" not in page} == set()


def test_the_workflow_is_one_of_github_and_its_actions_are_pinned() -> None:
    workflow = FOLDER / "github-actions.yml"
    used = [
        step["uses"]
        for step in yaml.safe_load(workflow.read_text())["jobs"]["main"]["steps"]
        if "uses" in step
    ]

    check("check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(workflow))

    assert [action for action in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action)] == []


def test_the_cronjob_is_one_of_kubernetes() -> None:
    said = check("kubernetes-validate", "--strict", str(FOLDER / "cronjob.yaml"))

    assert said.count(" passed for resource ") == 2


def test_the_image_is_built_from_pinned_and_existing_things() -> None:
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    (base,) = [line.removeprefix("FROM ") for line in lines if line.startswith("FROM ")]
    copied = [
        part
        for line in lines
        if line.startswith("COPY ")
        for part in line.split()[1:-1]
        if not part.startswith("--")
    ]

    check("hadolint", str(FOLDER / "Dockerfile"))

    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base)
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert os.access(FOLDER / "entrypoint", os.X_OK)
    assert re.search(r"^torch==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)


@pytest.mark.process
def test_systemd_has_nothing_to_say_against_the_units() -> None:
    assert (
        check(
            "systemd-analyze",
            "verify",
            str(FOLDER / "mlflow-sb3.service"),
            str(FOLDER / "mlflow-sb3.timer"),
        )
        == ""
    )
    check(
        "systemd-analyze",
        "security",
        "--offline=true",
        "--threshold=40",
        str(FOLDER / "mlflow-sb3.service"),
    )


@pytest.mark.process
def test_cron_calls_main_which_leaves_while_another_one_is_at_work(
    store: str, tmp_path: Path
) -> None:
    check("crontab", "-n", str(FOLDER / "crontab"))
    experiment = MlflowClient().create_experiment(
        "nightly", artifact_location=(tmp_path / "nightly").as_uri()
    )
    client, log = MlflowClient(), tmp_path / "log.txt"
    owner = client.create_run(experiment).info.run_id
    variables = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "PROJECT": str(ROOT),
        "LOG": str(log),
        "MLFLOW_TRACKING_URI": f"{store}\nXDG_STATE_HOME={os.environ['XDG_STATE_HOME']}",
    }

    with (
        heartbeat.heartbeat(owner),
        lease.held("cartpole-v1-dqn", owner),
        cron(every_minute(variables)),
    ):
        until(
            lambda: log.exists() and "Left: " in log.read_text(),
            otherwise=lambda: log.exists() and log.read_text(),
        )

    assert f"Left: run {owner} of main is at work on cartpole-v1-dqn since " in log.read_text()
    (left, *_) = client.search_runs([experiment], f"tags.`{lease.LEFT}` = '{owner}'")
    assert left.data.params["timesteps"] == "50000"
    assert left.data.params["seed"].startswith("20")


def every_minute(variables: dict[str, str]) -> str:
    """The crontab as a file of /etc/cron.d, which has a column for the user, with these values and another time."""
    text = (FOLDER / "crontab").read_text()
    for name, value in variables.items():
        text, replaced = re.subn(f"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
        assert replaced == 1
    text, replaced = re.subn(
        r"^17 2 \* \* \* ", f"* * * * * {getpass.getuser()} ", text, flags=re.MULTILINE
    )
    assert replaced == 1
    return text


@contextmanager
def cron(table: str) -> Iterator[None]:
    """A table in a file of its own, and a cron daemon, unless there is one."""
    path = f"/etc/cron.d/mlflow-sb3-test-{uuid4().hex}"
    subprocess.run(
        [*AS_ROOT, "tee", path], input=table, stdout=subprocess.DEVNULL, text=True, check=True
    )
    subprocess.run([*AS_ROOT, "chmod", "644", path], check=True)
    daemon = subprocess.Popen(
        [*AS_ROOT, "/usr/sbin/cron", "-f"]
    )  # ends by itself where another one has the lock of /run/crond.pid
    try:
        yield
    finally:
        subprocess.run([*AS_ROOT, "rm", path], check=True)
        if daemon.poll() is None:
            subprocess.run([*AS_ROOT, "kill", str(daemon.pid)], check=True)
        daemon.wait()


@pytest.mark.process
def test_a_container_that_is_stopped_waits_for_the_snapshot_and_gives_the_lease_back(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path)
    place.client.search_experiments()
    command = [
        str(FOLDER / "entrypoint"),
        "-P",
        "algo=ppo",
        "-P",
        "timesteps=500000",
        "-P",
        "exclusive=true",
    ]
    with (tmp_path / "log.txt").open("w") as log:
        container = subprocess.Popen(
            command, env=place.environment(), stdout=log, stderr=log, start_new_session=True
        )
    until(snapshots)

    container.terminate()

    assert container.wait(PATIENCE) == 128 + signal.SIGTERM
    assert {run.info.status for run in place.runs()} == {"KILLED"}
    assert len(place.runs()) == 2
    assert place.client.search_model_versions("name = 'cartpole-v1-ppo.lease'") == []
    assert len(place.client.search_registered_models()) == 1
