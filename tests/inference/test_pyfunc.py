"""What comes over HTTP, and what it is answered with."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.types import DataType
from numpy.typing import NDArray

import mlflow_sb3
from deploy.server.process import find_free_port, is_reachable
from mlflow_sb3.algorithms import algorithms
from mlflow_sb3.envs import env_spec
from mlflow_sb3.flavor import onnx_export
from mlflow_sb3.inference.pyfunc import PolicyModel
from tests.environments import OBSERVATIONS, RESERVED
from tests.processes import PATIENCE, until

OFF_POLICY = {"learning_starts": 8, "batch_size": 8, "buffer_size": 100}


def save(
    folder: Path, algo: str, observations: str, hyperparams: dict[str, Any], **options: Any
) -> Path:
    description = env_spec.compose_spec(
        "tests.environments:Named-v0", kwargs={"observations": observations, "actions": "Discrete"}
    )
    model = algorithms.build(algo, description, hyperparams, seed=0)
    mlflow_sb3.save_model(model, folder, environment=description, **options)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An agent that sees images, as tensors and as bytes."""
    folder = tmp_path_factory.mktemp("images")
    return save(folder / "tensor", "dqn", "image", OFF_POLICY), save(
        folder / "bytes", "dqn", "image", OFF_POLICY, image_input="base64"
    )


@pytest.fixture(scope="module")
def batch() -> NDArray[np.uint8]:
    drawn = onnx_export.sample_observations(OBSERVATIONS["image"], 16)
    assert not isinstance(drawn, dict)
    return drawn


def test_an_image_may_come_as_its_bytes(
    images: tuple[Path, Path], batch: NDArray[np.uint8]
) -> None:
    tensor, binary = (mlflow.pyfunc.load_model(str(folder)) for folder in images)
    frame = pd.DataFrame({"observation": [image.tobytes() for image in batch]})

    assert binary.predict(frame).tolist() == tensor.predict(batch).tolist()
    assert len(set(tensor.predict(batch).tolist())) > 0
    assert binary.metadata.signature.inputs.input_types() == [DataType.binary]


def test_an_image_of_another_size_is_refused(images: tuple[Path, Path]) -> None:
    model = mlflow.pyfunc.load_model(str(images[1]))

    with pytest.raises(
        MlflowException,
        match=r"an image has 7 bytes; expected 4320, the uint8 values of \(36, 40, 3\) in C order",
    ):
        model.predict(pd.DataFrame({"observation": [b"1234567"]}))


def test_what_is_no_image_is_not_served_as_bytes(tmp_path: Path) -> None:
    with pytest.raises(
        MlflowException,
        match=r"base64 is for observations of one uint8 image.*use image_input=tensor",
    ):
        save(tmp_path / "model", "dqn", "vector", OFF_POLICY, image_input="base64")

    assert not (tmp_path / "model").exists()


def test_no_image_is_refused(images: tuple[Path, Path]) -> None:
    with pytest.raises(MlflowException, match="there are no images; give one at least"):
        PolicyModel(mlflow_sb3.load_policy(str(images[1]))).predict(
            pd.DataFrame({"observation": []})
        )


def test_keys_may_be_called_as_a_state_where_there_is_none(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "ppo", "Reserved", {"n_steps": 8, "batch_size": 8})
    drawn = onnx_export.sample_observations(RESERVED, 3)
    assert isinstance(drawn, dict)

    served = mlflow.pyfunc.load_model(str(folder)).predict(
        {key: values.astype(np.float64) for key, values in drawn.items()}
    )

    assert served.tolist() == mlflow_sb3.load_policy(str(folder)).predict(drawn)[0].tolist()


def test_keys_that_mean_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        MlflowException,
        match="the observation has a key 'cell', which means something else in a request; rename it",
    ):
        save(tmp_path / "model", "ppo_lstm", "Reserved", {"n_steps": 8, "batch_size": 8})


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """``mlflow models serve`` as a process; gives its URL."""
    port = find_free_port()
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        str(folder),
        "--env-manager",
        "local",
        "-p",
        str(port),
    ]
    with (folder.parent / f"{folder.name}.log").open("w") as log:
        settings = os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
        process = subprocess.Popen(
            command, cwd=folder.parent, env=settings, stdout=log, stderr=log, start_new_session=True
        )
        try:
            until(
                lambda: process.poll() is not None or is_reachable(f"http://127.0.0.1:{port}/ping"),
                otherwise=Path(log.name).read_text,
            )
            assert process.poll() is None, Path(log.name).read_text()
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def ask(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        return json.load(response)["predictions"]


def refused(url: str, body: dict[str, Any]) -> str:
    with pytest.raises(urllib.error.HTTPError, match="400") as caught:
        ask(url, body)
    with caught.value as error:
        return error.read().decode()


@pytest.mark.process
def test_bytes_come_as_base64_over_http(
    images: tuple[Path, Path], batch: NDArray[np.uint8]
) -> None:
    records = [{"observation": base64.b64encode(image.tobytes()).decode()} for image in batch]

    with serving(images[1]) as url:
        actions = ask(url, {"dataframe_records": records})
        wrong = refused(url, {"dataframe_records": [{"observation": "AAAA"}]})

    assert actions == mlflow.pyfunc.load_model(str(images[0])).predict(batch).tolist()
    assert "an image has 3 bytes; expected 4320" in wrong


@pytest.mark.process
def test_dicts_come_as_inputs_and_as_instances(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "dqn", "Dict", OFF_POLICY)
    drawn = onnx_export.sample_observations(OBSERVATIONS["Dict"], 3)
    assert isinstance(drawn, dict)
    columns = {key: values.tolist() for key, values in drawn.items()}
    rows = [{key: values[row] for key, values in columns.items()} for row in range(3)]
    expected = mlflow_sb3.load_policy(str(folder)).predict(drawn)[0].tolist()

    with serving(folder) as url:
        assert ask(url, {"inputs": columns}) == expected
        assert ask(url, {"instances": rows}) == expected
        outside = refused(url, {"inputs": columns | {"number": [7, 7, 7]}})

    assert "observation.number has values outside of the space" in outside


@pytest.mark.process
def test_a_server_keeps_no_state_which_travels_with_the_requests(tmp_path: Path) -> None:
    hyperparams = {"n_steps": 16, "batch_size": 16, "policy_kwargs": {"lstm_hidden_size": 4}}
    folder = save(tmp_path / "model", "ppo_lstm", "vector", hyperparams)
    policy = mlflow_sb3.load_policy(str(folder))
    observations = np.random.default_rng(0).uniform(-1, 1, (4, 2, 3))
    memory = {name: np.zeros((2, 1, 4)).tolist() for name in ("hidden", "cell")}
    state = None

    with serving(folder) as url:
        for step, batch in enumerate(observations):
            answer = ask(
                url,
                {
                    "inputs": {
                        "observation": batch.tolist(),
                        "episode_start": [step == 0] * 2,
                        **memory,
                    }
                },
            )
            memory = {name: answer[name] for name in memory}
            expected, state = policy.predict(batch, state)
            assert answer["action"] == expected.tolist()
        sampled = [
            ask(
                url,
                {
                    "inputs": {
                        "observation": observations[0].tolist(),
                        "episode_start": [True] * 2,
                        **memory,
                    },
                    "params": params,
                },
            )
            for params in ({"deterministic": False, "seed": 3}, {"deterministic": False, "seed": 3})
        ]

    assert sampled[0] == sampled[1]
