"""Run the code blocks of README.md and docs/, with shorter trainings and free ports."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from deploy.server import process
from tests import ROOT, processes
from tests.conftest import Keys
from tests.faults import worker
from tests.project import people
from tests.project.conftest import Place, cloned, run_server
from tests.project.readme import example, short_example

pytestmark = pytest.mark.process

SCRIPTS = {
    "log-and-load": example("log-and-load").replace("10_000", "100"),
    "load-policy": example("load-policy"),
    "load-pyfunc": example("load-pyfunc"),
    "load-model": example("load-model").replace("1000", "100"),
}
TRAININGS = {
    "train": short_example("train"),
    "train-wrappers": short_example("train-wrappers"),
    "train-hyperparams": short_example("train-hyperparams"),
    "fine-tune": short_example("fine-tune"),
}


def find_links() -> str:
    """Return the folder or URL of pip's option find-links, which uv does not read by itself."""
    configured = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.find-links"],
        capture_output=True,
        text=True,
        check=False,
    )
    return os.environ.get("UV_FIND_LINKS", configured.stdout.strip())


def test_the_ui_starts(trained_place: Place) -> None:
    port = process.find_free_port()
    command = example("ui").replace("5000", str(port)).split()

    with run_server(trained_place, command, f"http://127.0.0.1:{port}/health"):
        pass


@pytest.mark.skipif(
    shutil.which("pyenv") is None, reason="MLflow's virtualenv manager needs pyenv on PATH"
)
def test_main_runs_in_a_virtualenv_environment(tmp_path: Path) -> None:
    # pip takes half of the time without compiling all modules.
    variables = {"MLFLOW_ENV_ROOT": str(tmp_path), "PIP_NO_COMPILE": "1"}
    place = replace(cloned(tmp_path), variables=variables)

    done = place.shell(short_example("env-manager-virtualenv"))

    assert done.returncode == 0, done.stderr
    assert "Mean reward: " in done.stdout


def test_main_runs_in_a_uv_environment(tmp_path: Path) -> None:
    variables = {"MLFLOW_ENV_ROOT": str(tmp_path), "UV_FIND_LINKS": find_links()}
    place = replace(cloned(tmp_path), variables=variables)

    done = place.shell(short_example("env-manager-uv"))

    assert done.returncode == 0, done.stderr
    assert "Mean reward: " in done.stdout


@pytest.mark.skipif(shutil.which("conda") is None, reason="conda is not installed")
def test_main_runs_in_a_conda_environment(tmp_path: Path) -> None:
    done = cloned(tmp_path).shell(short_example("env-manager-conda"))

    assert done.returncode == 0, done.stderr


def test_conda_installs_the_same_requirements() -> None:
    pip = yaml.safe_load((ROOT / "conda.yaml").read_text())["dependencies"][-1]

    assert pip == {"pip": ["-r requirements.txt"]}


def test_a_git_uri_evaluates_the_champion(trained_place: Place, tmp_path: Path) -> None:
    with people.git_server(tmp_path) as uri:
        source = f"'{uri}#{people.SUBFOLDER}' -v {people.TAG}"
        done = trained_place.shell(re.sub(r"https://\S+", source, example("git-uri")))

    assert done.returncode == 0, done.stderr
    assert f"Fetching project from {uri}" in done.stderr
    assert "Mean reward: " in done.stdout


def test_relative_paths_start_in_the_clone_of_a_git_uri(tmp_path: Path, keys: Keys) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    variables = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "MLFLOW_EXPERIMENT_NAME": "nightly",
    }
    place = Place(folder, variables)
    client = MlflowClient(variables["MLFLOW_TRACKING_URI"])
    client.create_experiment("nightly", artifact_location=(tmp_path / "artifacts").as_uri())
    absolute, relative = str(keys.private), os.path.relpath(keys.private, folder)

    with people.git_server(tmp_path) as uri:
        source = f"{uri}#{people.SUBFOLDER}"
        call = ["mlflow", "run", source, "-v", people.TAG, "-e", "main", "--env-manager", "local"]
        call += ["-P", "timesteps=300", "-P", "episodes=3"]
        signed = place.run(
            [*call, "-P", f"signing_key={absolute}", "-P", f"public_key={keys.public}"]
        )
        refused = place.run([*call, "-P", f"signing_key={relative}"])

    assert signed.returncode == 0, signed.stderr
    assert "Mean reward: " in signed.stdout
    assert client.get_model_version("cartpole-v1-dqn", "1").tags["mlflow_sb3.signature"]
    assert f"'{relative}'" in refused.stderr
    assert refused.returncode == 1
    assert list(folder.iterdir()) == []


def test_a_signed_version_is_evaluated_with_the_public_key(trained_place: Place) -> None:
    run_id = trained_place.runs("tags.mlflow.project.entryPoint = 'train'")[0].info.run_id
    commands = example("sign").replace("RUN_ID", f"{run_id} -P model_name=signed")
    commands = commands.replace("alias=challenger", "alias=challenger -P model_name=signed")

    created = trained_place.shell(example("keys"))
    done = trained_place.shell(commands)

    assert created.returncode == 0, created.stderr
    assert done.returncode == 0, done.stderr
    assert trained_place.client.get_model_version("signed", "1").tags["mlflow_sb3.signature"]
    assert "Mean reward: " in done.stdout


def test_versions_are_promoted_replayed_and_rolled_back(
    tmp_path: Path, trained_place: Place, untouched_folder: Path
) -> None:
    # A copy of the store, because other tests read the champion of the original.
    place = replace(trained_place, folder=shutil.copytree(untouched_folder, tmp_path / "copy"))
    run_id = place.runs("tags.mlflow.project.entryPoint = 'train'")[0].info.run_id
    replayed = place.runs("tags.mlflow.project.entryPoint = 'promote'")[0].info.run_id
    log = tmp_path / "log_model.txt"
    for _ in range(2):
        code = worker.step("log_model", "--run-id", run_id, variables=place.environment(), log=log)
        assert code == 0, log.read_text()

    tie = place.shell(example("promote"))
    best = place.shell(example("promote-best"))
    forced = place.shell(example("promote-force"))
    replay = place.shell(example("replay").replace("RUN_ID", replayed))
    rollback = place.shell(example("rollback"))

    done = [tie, best, forced, replay, rollback]
    assert [each.returncode for each in done] == [0] * 5, [each.stderr for each in done]
    assert re.search(r"tie: .*cartpole-v1-dqn/2 .*cartpole-v1-dqn/1", tie.stdout), tie.stdout
    assert "tie: " in best.stdout
    assert re.search(r"promote: .*cartpole-v1-dqn/3.*the champion overheats", forced.stdout)
    assert f"identical: the replay of run {replayed}" in replay.stdout
    assert re.search(r"rollback: .*cartpole-v1-dqn/1.*it fell over", rollback.stdout)
    champion = place.client.get_model_version_by_alias("cartpole-v1-dqn", "champion")
    assert str(champion.version) == "1"


def test_an_interrupted_training_is_resumed_and_reproduced(tmp_path: Path) -> None:
    place = cloned(tmp_path)
    command = [sys.executable, "-m", "steps.train", "--algo", "ppo", "--timesteps", "6000"]
    with subprocess.Popen(command, cwd=place.folder, env=place.environment()) as step:
        while not processes.find_snapshots(Path(os.environ["XDG_STATE_HOME"])):
            assert step.poll() is None
            time.sleep(0.1)
        step.terminate()

    resumed = place.shell(example("resume").replace("RUN_ID", place.runs()[0].info.run_id))
    assert resumed.returncode == 0, resumed.stderr
    reproduced = place.shell(example("reproduce").replace("RUN_ID", place.runs()[0].info.run_id))

    assert step.returncode == 143
    assert reproduced.returncode == 0, reproduced.stderr
    assert "identical: the weights of run" in reproduced.stdout


@pytest.mark.parametrize("commands", TRAININGS.values(), ids=TRAININGS)
def test_the_commands_of_the_training_page_train(commands: str, trained_place: Place) -> None:
    done = trained_place.shell(commands)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_python_examples_run(script: str, trained_place: Place) -> None:
    done = trained_place.run([sys.executable, "-c", script])

    assert done.returncode == 0, done.stderr


def test_a_step_takes_options_and_parameters(trained_place: Place) -> None:
    done = trained_place.shell(example("step-options"))

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Mean reward: ") == 2


def test_a_user_evaluates_in_an_experiment_of_their_own(trained_place: Place) -> None:
    done = trained_place.shell(example("own-experiment"))

    assert done.returncode == 0, done.stderr
    experiment = trained_place.client.get_experiment_by_name("alice")
    assert experiment is not None
    assert len(trained_place.client.search_runs([experiment.experiment_id])) == 1


def test_the_served_champion_answers_curl(trained_place: Place) -> None:
    place = replace(trained_place, variables={"UV_FIND_LINKS": find_links()})
    port = str(process.find_free_port())
    command = example("serve").replace("5001", port).split()

    prepared = place.shell(example("prepare-env"))
    with run_server(place, command, f"http://127.0.0.1:{port}/ping"):
        response = place.shell(example("request").replace("5001", port))

    assert prepared.returncode == 0, prepared.stderr
    assert re.fullmatch(r'\{"predictions": \[[01]\]\}', response.stdout), (
        response.stdout + response.stderr
    )


def test_the_receiver_runs_its_command_for_the_champion(
    trained_place: Place, tmp_path: Path
) -> None:
    script = tmp_path / "restart.sh"
    script.write_text('#!/bin/sh\necho "$MODEL_NAME/$MODEL_VERSION" > "$(dirname "$0")/served"\n')
    script.chmod(0o700)
    served = tmp_path / "served"
    port = str(process.find_free_port())
    commands = example("rollover").replace("5010", port).replace("./restart.sh", str(script))

    with process.run_server(
        ["bash", "-c", commands],
        ready=served.exists,
        log=trained_place.folder / "rollover.log",
        variables=trained_place.environment(),
    ):
        pass

    assert served.read_text() == "cartpole-v1-dqn/1\n"


@pytest.mark.postgres
def test_the_trial_server_starts_and_grants_permissions(place: Place, tmp_path: Path) -> None:
    folder, port = tmp_path / "trial", str(process.find_free_port())
    requirements = "deploy/server/requirements.txt"
    start = example("trial").replace(requirements, str(ROOT / requirements))
    start = f"{start.rstrip()} --folder {folder} --port {port}"
    grant = example("grant").replace("5000", port).replace("~/mlflow-trial", str(folder))

    with process.run_server(
        ["bash", "-euo", "pipefail", "-c", start],
        ready=(folder / "server.json").exists,
        log=place.folder / "trial.log",
        variables=place.environment() | {"PYTHONPATH": str(ROOT)},
    ):
        login = {"MLFLOW_TRACKING_USERNAME": "admin"}
        login["MLFLOW_TRACKING_PASSWORD"] = (folder / "admin.password").read_text()
        client = replace(
            place, variables=login | {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
        )
        script = "import mlflow; mlflow.MlflowClient().create_registered_model('cartpole-v1-dqn')"
        created = client.run([sys.executable, "-c", script])
        granted = client.shell(grant.replace("curl ", "curl --fail "))

    assert created.returncode == 0, created.stderr
    assert granted.returncode == 0, granted.stdout + granted.stderr
    assert (folder / "alice.password").exists()
