"""The README's commands, each run as it stands there but for a shorter training and a free port."""

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

from deploy.server.process import find_free_port
from tests import ROOT, processes
from tests.conftest import Keys
from tests.faults import worker
from tests.project import people
from tests.project.conftest import Place, cloned, run_server
from tests.project.readme import PYTHON, README, SHELL, TABLE, command

pytestmark = pytest.mark.process


def find_links() -> str:
    """Where pip was told to look for packages besides its index, which uv has to be told again."""
    configured = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.find-links"],
        capture_output=True,
        text=True,
        check=False,
    )
    return os.environ.get("UV_FIND_LINKS", configured.stdout.strip())


def test_every_command_of_the_readme_is_run_by_a_test() -> None:
    tested = (
        "pip install -r requirements.txt",
        "pip install -r tests/",
        "mlflow ui",
        "mlflow run .",
        "conda env",
        "mlflow run https",
        "mlflow models",
        "curl",
        "openssl",
    )

    assert [line for line in [*SHELL, *TABLE] if not line.startswith(tested)] == []
    assert len(PYTHON) == 2


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert "<!-- tests -->\n```bash\n" + command("pip install -r tests/requirements.txt") in README
    assert "<!-- tests -->" in (ROOT / ".ci" / "run").read_text()


def test_the_ui_shows_what_a_run_left(trained_place: Place) -> None:
    port = find_free_port()

    with run_server(
        trained_place,
        command("mlflow ui").replace("5000", str(port)).split(),
        f"http://127.0.0.1:{port}/health",
    ):
        pass


@pytest.mark.skipif(
    shutil.which("pyenv") is None, reason="MLflow's virtualenv manager needs pyenv on PATH"
)
def test_the_plain_command_makes_an_environment_with_virtualenv(tmp_path: Path) -> None:
    place = replace(cloned(tmp_path), variables={"MLFLOW_ENV_ROOT": str(tmp_path)})
    line = next(
        line for line in TABLE if line.startswith("mlflow run .") and "--env-manager" not in line
    )

    done = place.shell(line.replace("timesteps=50000", "timesteps=300"))

    assert done.returncode == 0, done.stderr
    assert "Mean reward: " in done.stdout


def test_uv_makes_an_environment(tmp_path: Path) -> None:
    place = replace(
        cloned(tmp_path),
        variables={"MLFLOW_ENV_ROOT": str(tmp_path), "UV_FIND_LINKS": find_links()},
    )
    line = next(line for line in TABLE if line.endswith("--env-manager uv"))

    done = place.shell(line.replace("timesteps=50000", "timesteps=300"))

    assert done.returncode == 0, done.stderr
    assert "Mean reward: " in done.stdout


@pytest.mark.skipif(shutil.which("conda") is None, reason="conda is not installed")
def test_conda_makes_an_environment(tmp_path: Path) -> None:
    done = cloned(tmp_path).shell(
        command("conda env create").replace("timesteps=50000", "timesteps=300")
    )

    assert done.returncode == 0, done.stderr


def test_conda_users_get_the_same_requirements() -> None:
    pip = yaml.safe_load((ROOT / "conda.yaml").read_text())["dependencies"][-1]

    assert pip == {"pip": ["-r requirements.txt"]}


def test_a_git_uri_evaluates_the_champion(trained_place: Place, tmp_path: Path) -> None:
    with people.git_server(tmp_path) as uri:
        done = trained_place.shell(
            re.sub(
                r"https://\S+",
                f"'{uri}#{people.SUBFOLDER}' -v {people.TAG}",
                command("mlflow run https"),
            )
        )

    assert done.returncode == 0, done.stderr
    assert f"Fetching project from {uri}" in done.stderr
    assert "Mean reward: " in done.stdout


def test_main_from_git_works_in_a_clone_in_which_relative_paths_begin(
    tmp_path: Path, keys: Keys
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    place = Place(
        folder,
        {
            "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
            "MLFLOW_EXPERIMENT_NAME": "nightly",
        },
    )
    client = MlflowClient(place.variables["MLFLOW_TRACKING_URI"])
    client.create_experiment("nightly", artifact_location=(tmp_path / "artifacts").as_uri())
    whole = str(keys.private)

    with people.git_server(tmp_path) as uri:
        call = [
            "mlflow",
            "run",
            f"{uri}#{people.SUBFOLDER}",
            "-v",
            people.TAG,
            "-e",
            "main",
            "--env-manager",
            "local",
        ]
        call += ["-P", "timesteps=300", "-P", "episodes=3"]
        done = place.run([*call, "-P", f"signing_key={whole}", "-P", f"public_key={keys.public}"])
        refused = place.run([*call, "-P", f"signing_key={os.path.relpath(whole, folder)}"])

    assert done.returncode == 0, done.stderr
    assert "Mean reward: " in done.stdout
    assert client.get_model_version("cartpole-v1-dqn", "1").tags["mlflow_sb3.signature"]
    assert f"private key '{os.path.relpath(whole, folder)}'" in refused.stderr
    assert refused.returncode == 1
    assert list(folder.iterdir()) == []


def test_a_signed_version_is_evaluated_with_the_public_key(trained_place: Place) -> None:
    run_id = trained_place.runs("tags.mlflow.project.entryPoint = 'train'")[0].info.run_id
    line = command("mlflow run . -e log_model").replace(
        "run_id=RUN_ID", f"run_id={run_id} -P model_name=signed"
    )

    made = trained_place.shell(command("openssl"))
    done = trained_place.shell(
        line.replace("alias=challenger", "alias=challenger -P model_name=signed")
    )

    assert made.returncode == 0, made.stderr
    assert done.returncode == 0, done.stderr
    assert trained_place.client.get_model_version("signed", "1").tags["mlflow_sb3.signature"]
    assert "Mean reward: " in done.stdout


def test_versions_are_promoted_replayed_and_rolled_back(
    tmp_path: Path, untouched_folder: Path
) -> None:
    """In a copy of the store: others read the champion of the first one."""
    place = Place(shutil.copytree(untouched_folder, tmp_path / "copy"))
    run_id = place.runs("tags.mlflow.project.entryPoint = 'train'")[0].info.run_id
    replayed = place.runs("tags.mlflow.project.entryPoint = 'promote'")[0].info.run_id
    for _ in range(2):
        log = tmp_path / "log_model.txt"
        assert (
            worker.step("log_model", "--run-id", run_id, variables=place.environment(), log=log)
            == 0
        ), log.read_text()
    lines = command("mlflow run . -e promote").splitlines()

    done = [place.shell(line.replace("RUN_ID", replayed)) for line in lines]

    assert [one.returncode for one in done] == [0] * 5, [one.stderr for one in done]
    assert "tie: cartpole-v1-dqn/3 and cartpole-v1-dqn/1 returned the same" in done[0].stdout
    assert "tie: " in done[1].stdout
    assert (
        "promote: cartpole-v1-dqn/3 did not have to play in place of cartpole-v1-dqn/1: the champion overheats"
        in done[2].stdout
    )
    assert f"identical: run {replayed}" in done[3].stdout
    assert (
        "rollback: cartpole-v1-dqn/1 is the champion again, in place of cartpole-v1-dqn/3: it fell over."
        in done[4].stdout
    )


def test_a_training_is_resumed_and_made_again(tmp_path: Path) -> None:
    place = cloned(tmp_path)
    resume, reproduce = command("mlflow run . -e train -P resume").splitlines()
    options = ["--algo", "ppo", "--timesteps", "6000"]
    step = subprocess.Popen(
        [sys.executable, "-m", "steps.train", *options], cwd=place.folder, env=place.environment()
    )
    with step:
        while not processes.snapshots(Path(os.environ["XDG_STATE_HOME"])):
            assert step.poll() is None
            time.sleep(0.1)
        step.terminate()

    resumed = place.shell(resume.replace("RUN_ID", place.runs()[0].info.run_id))
    assert resumed.returncode == 0, resumed.stderr
    reproduced = place.shell(reproduce.replace("RUN_ID", place.runs()[0].info.run_id))

    assert step.returncode == 143
    assert reproduced.returncode == 0, reproduced.stderr
    assert "identical: the weights of run" in reproduced.stdout


@pytest.mark.parametrize("script", PYTHON, ids=range(len(PYTHON)))
def test_the_scripts_of_the_readme_run(script: str, trained_place: Place) -> None:
    done = trained_place.run([sys.executable, "-c", script])

    assert done.returncode == 0, done.stderr


def test_the_served_champion_answers_curl(trained_place: Place) -> None:
    port = str(find_free_port())

    with run_server(
        trained_place,
        command("mlflow models serve").replace("5001", port).split(),
        f"http://127.0.0.1:{port}/ping",
    ):
        answer = trained_place.shell(command("curl").replace("5001", port))

    assert re.fullmatch(r'\{"predictions": \[[01]\]\}', answer.stdout), (
        answer.stdout + answer.stderr
    )
