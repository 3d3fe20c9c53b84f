"""Tests of the schedule examples with the tools of their schedulers."""

from __future__ import annotations

import configparser
import getpass
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Run

from tests import ROOT
from tests.faults.test_main import find_snapshots
from tests.processes import PROCESS_TIMEOUT, wait_until
from tests.project.conftest import Place

FOLDER = ROOT / "deploy" / "schedules"
EXAMPLES = ("crontab", "mlflow-sb3.service", "github-actions.yml", "cronjob.yaml")
"""The files that run main."""
AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]


def run_checker(*command: str) -> str:
    """Run a tool that must succeed and return its output."""
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


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_only_sets_parameters_of_main(name: str) -> None:
    entry_points = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    used = set(re.findall(r"-P (\w+)=", (FOLDER / name).read_text()))

    assert {"timesteps", "seed"} <= used <= set(entry_points["main"]["parameters"])


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_names_an_experiment_because_only_the_admin_may_write_to_default(
    name: str,
) -> None:
    lines = re.findall(
        r"^[^#\n]*MLFLOW_EXPERIMENT_NAME(?:=|: |, value: )nightly\b",
        (FOLDER / name).read_text(),
        re.MULTILINE,
    )

    assert len(lines) == 1


def test_the_page_links_every_example() -> None:
    page = (FOLDER / "README.md").read_text()
    names = {path.name for path in FOLDER.iterdir()} - {"README.md", "Dockerfile.dockerignore"}

    assert {name for name in names if f"({name})" not in page} == set()


def test_the_workflow_follows_the_github_schema_and_pins_its_actions() -> None:
    workflow = FOLDER / "github-actions.yml"
    steps = yaml.safe_load(workflow.read_text())["jobs"]["main"]["steps"]
    actions = [step["uses"] for step in steps if "uses" in step]

    run_checker("check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(workflow))

    assert [name for name in actions if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", name)] == []


def test_the_workflow_runs_one_main_at_a_time() -> None:
    workflow = yaml.safe_load((FOLDER / "github-actions.yml").read_text())

    assert workflow["concurrency"] == {"group": "mlflow-sb3-main", "cancel-in-progress": False}


def test_the_cronjob_follows_the_kubernetes_schema() -> None:
    output = run_checker("kubernetes-validate", "--strict", str(FOLDER / "cronjob.yaml"))

    assert output.count(" passed for resource ") == 2


def test_the_cronjob_forbids_concurrent_jobs() -> None:
    resources = yaml.safe_load_all((FOLDER / "cronjob.yaml").read_text())
    (cronjob,) = [resource for resource in resources if resource["kind"] == "CronJob"]

    assert cronjob["spec"]["concurrencyPolicy"] == "Forbid"


def test_the_image_has_pinned_versions_and_copies_existing_files() -> None:
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    (base,) = [line.removeprefix("FROM ") for line in lines if line.startswith("FROM ")]
    copied = [
        part
        for line in lines
        if line.startswith("COPY ")
        for part in line.split()[1:-1]
        if not part.startswith("--")
    ]

    run_checker("hadolint", str(FOLDER / "Dockerfile"))

    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base)
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert os.access(FOLDER / "entrypoint", os.X_OK)
    assert re.search(r"^torch==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)


def test_the_timer_starts_one_unit_that_is_active_until_main_ends() -> None:
    """systemd ignores a start of an active unit. A oneshot unit is active until its command ends.

    A template unit (`name@.service`) could run several times at once.
    """
    unit = configparser.RawConfigParser(strict=False)
    unit.read(FOLDER / "mlflow-sb3.service")
    timer = configparser.RawConfigParser()
    timer.read(FOLDER / "mlflow-sb3.timer")

    assert unit["Service"]["Type"] == "oneshot"
    assert unit["Service"]["ExecStart"].startswith("/bin/sh -c 'exec mlflow run ")
    assert not timer.has_option("Timer", "Unit")
    assert [path.name for path in FOLDER.glob("*.service")] == ["mlflow-sb3.service"]


@pytest.mark.process
def test_systemd_accepts_the_units() -> None:
    service, timer = str(FOLDER / "mlflow-sb3.service"), str(FOLDER / "mlflow-sb3.timer")

    assert run_checker("systemd-analyze", "verify", service, timer) == ""
    run_checker("systemd-analyze", "security", "--offline=true", "--threshold=40", service)


@pytest.mark.process
def test_cron_starts_main_only_while_no_other_main_holds_the_lock(
    store: str, tmp_path: Path
) -> None:
    run_checker("crontab", "-n", str(FOLDER / "crontab"))
    experiment = MlflowClient().create_experiment(
        "nightly", artifact_location=(tmp_path / "nightly").as_uri()
    )
    log, lock, ticks = tmp_path / "log.txt", tmp_path / "main.lock", tmp_path / "ticks"
    assignments = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "PROJECT": str(ROOT),
        "LOG": str(log),
        "LOCK": str(lock),
        "MLFLOW_TRACKING_URI": f"{store}\nXDG_STATE_HOME={os.environ['XDG_STATE_HOME']}",
        "PARAMETERS": (
            '-P algo=ppo -P timesteps=64 -P preset=none -P hyperparams={"n_steps":64} '
            "-P gate_episodes=10 -P episodes=1"
        ),
    }
    table = every_minute(assignments) + f"* * * * * {getpass.getuser()} echo tick >> {ticks}\n"

    def mains() -> list[Run]:
        filter_string = "tags.mlflow.project.entryPoint = 'main'"
        return list(MlflowClient().search_runs([experiment], filter_string))

    def read_log() -> str:
        return log.read_text() if log.exists() else ""

    with cron(table):
        with FileLock(lock):
            wait_until(ticks.exists)
            time.sleep(10)
            assert mains() == []
            assert read_log() == ""
        wait_until(mains, describe_failure=read_log)
    wait_until(lambda: mains()[0].info.status != "RUNNING", describe_failure=read_log)

    (run,) = mains()
    assert run.info.status == "FINISHED", read_log()
    assert run.data.params["seed"].startswith("20")


def every_minute(assignments: dict[str, str]) -> str:
    """Return the crontab for /etc/cron.d, with other values and a start every minute.

    The lines of such a file have an extra column with the user.
    """
    text = (FOLDER / "crontab").read_text()
    for name, value in assignments.items():
        (line,) = re.findall(f"^{name}=.*$", text, re.MULTILINE)
        text = text.replace(line, f"{name}={value}")
    text, replaced = re.subn(
        r"^17 2 \* \* \* ", f"* * * * * {getpass.getuser()} ", text, flags=re.MULTILINE
    )
    assert replaced == 1
    return text


@contextmanager
def cron(table: str) -> Iterator[None]:
    """Install a table, and run a cron daemon unless one is running already."""
    path = f"/etc/cron.d/mlflow-sb3-test-{uuid4().hex}"
    subprocess.run(
        [*AS_ROOT, "tee", path], input=table, stdout=subprocess.DEVNULL, text=True, check=True
    )
    subprocess.run([*AS_ROOT, "chmod", "644", path], check=True)
    # The daemon exits by itself if another daemon holds the lock of /run/crond.pid.
    daemon = subprocess.Popen([*AS_ROOT, "/usr/sbin/cron", "-f"])
    try:
        yield
    finally:
        subprocess.run([*AS_ROOT, "rm", path], check=True)
        if daemon.poll() is None:
            subprocess.run([*AS_ROOT, "kill", str(daemon.pid)], check=True)
        daemon.wait()


@pytest.mark.process
def test_a_stopped_container_waits_for_the_snapshot(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.client.search_experiments()
    command = [str(FOLDER / "entrypoint"), "-P", "algo=ppo", "-P", "timesteps=500000"]
    with (tmp_path / "log.txt").open("w") as log:
        container = subprocess.Popen(
            command, env=place.environment(), stdout=log, stderr=log, start_new_session=True
        )
    wait_until(find_snapshots)

    container.terminate()

    assert container.wait(PROCESS_TIMEOUT) == 128 + signal.SIGTERM
    assert {run.info.status for run in place.runs()} == {"KILLED"}
    assert len(place.runs()) == 2
    assert place.client.search_registered_models() == []
