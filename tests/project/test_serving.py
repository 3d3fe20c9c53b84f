"""Tests of a logged model without PyTorch and Stable-Baselines3."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import pytest

from deploy.server.process import find_free_port
from tests import ROOT
from tests.processes import PROCESS_TIMEOUT
from tests.project.conftest import Place, run_server

pytestmark = pytest.mark.process

URI = "models:/cartpole-v1-dqn@champion"
SCRIPT = """
import importlib.util
import sys

import gymnasium
import mlflow.pyfunc
import numpy as np
import pandas as pd

assert not importlib.util.find_spec("torch") and not importlib.util.find_spec("stable_baselines3")
model = mlflow.pyfunc.load_model("models:/cartpole-v1-dqn@champion")
batch = np.array([[0., 0., 0., 0.]])
env = gymnasium.make("CartPole-v1")
env.reset(seed=0)
for actions in (model.predict(batch), model.predict(pd.DataFrame(batch))):
    env.step(actions[0])

policy = model.get_raw_model()
for observation in (batch, batch.astype(np.float32)):
    env.step(policy.predict(observation)[0][0])
env.step(policy.predict(np.zeros(4, dtype=np.float32))[0])
print("acted", sys.modules["mlflow_sb3"].__file__)
"""


@pytest.fixture(scope="module")
def bare_python(trained_place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the requirements of the model and Gymnasium."""
    folder, before = tmp_path_factory.mktemp("bare"), mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(trained_place.store)
    requirements = mlflow.artifacts.download_artifacts(
        artifact_uri=f"{URI}/requirements.txt", dst_path=str(folder)
    )
    mlflow.set_tracking_uri(before)
    python = folder / "venv" / "bin" / "python"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "uv",
            "venv",
            "--quiet",
            "--python",
            sys.executable,
            str(folder / "venv"),
        ],
        check=True,
    )
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python)]
    subprocess.run([*install, "-r", requirements, "gymnasium"], check=True)
    return python


def test_a_model_acts_without_torch_and_sb3(trained_place: Place, bare_python: Path) -> None:
    done = trained_place.run([str(bare_python), "-c", SCRIPT])

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("acted ")
    assert str(ROOT) not in done.stdout


def test_a_model_serves_over_http_without_torch_and_sb3(
    trained_place: Place, bare_python: Path
) -> None:
    port = find_free_port()
    command = [
        str(bare_python),
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        URI,
        "--env-manager",
        "local",
        "-p",
        str(port),
    ]
    url = f"http://127.0.0.1:{port}"
    with run_server(trained_place, command, f"{url}/ping"):
        answer = invoke(url, {"inputs": [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.2, 1.0]]})
        status = get_error_status(url, {"inputs": [[0.0, 0.0, 0.0]]})

    assert len(answer["predictions"]) == 2
    assert set(answer["predictions"]) <= {0, 1}
    assert status == 400


def invoke(url: str, body: dict[str, object]) -> dict[str, list[int]]:
    request = urllib.request.Request(
        f"{url}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PROCESS_TIMEOUT) as response:
        answer: dict[str, list[int]] = json.load(response)
    return answer


def get_error_status(url: str, body: dict[str, object]) -> int:
    with pytest.raises(urllib.error.HTTPError, match=r"BAD REQUEST|Bad Request") as raised:
        invoke(url, body)
    with raised.value as error:
        return error.code
