"""Requests to a served model, in the same process and over HTTP."""

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
from mlflow_sb3.algorithms import builder
from mlflow_sb3.envs import env_spec
from mlflow_sb3.flavor import parity_inputs
from mlflow_sb3.inference.pyfunc import PolicyModel
from tests.environments import OBSERVATIONS, RESERVED
from tests.processes import PROCESS_TIMEOUT, wait_until

OFF_POLICY = {"learning_starts": 8, "batch_size": 8, "buffer_size": 100}


def save(
    folder: Path, algo: str, observations: str, hyperparams: dict[str, Any], **options: Any
) -> Path:
    description = env_spec.compose_spec(
        "tests.environments:Named-v0", kwargs={"observations": observations, "actions": "Discrete"}
    )
    model = builder.build_algorithm(algo, description, hyperparams, seed=0)
    mlflow_sb3.save_model(model, folder, environment=description, **options)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models of an agent with image observations: one takes tensors, the other bytes."""
    folder = tmp_path_factory.mktemp("images")
    return save(folder / "tensor", "dqn", "image", OFF_POLICY), save(
        folder / "bytes", "dqn", "image", OFF_POLICY, image_input="base64"
    )


@pytest.fixture(scope="module")
def batch() -> NDArray[np.uint8]:
    samples = parity_inputs.sample_observations(OBSERVATIONS["image"], 16)
    assert not isinstance(samples, dict)
    return samples


@pytest.mark.train
def test_an_image_can_be_sent_as_bytes(images: tuple[Path, Path], batch: NDArray[np.uint8]) -> None:
    tensor, binary = (mlflow.pyfunc.load_model(str(folder)) for folder in images)
    frame = pd.DataFrame({"observation": [image.tobytes() for image in batch]})

    assert binary.predict(frame).tolist() == tensor.predict(batch).tolist()
    assert len(set(tensor.predict(batch).tolist())) > 0
    assert binary.metadata.signature.inputs.input_types() == [DataType.binary]


def test_an_image_of_another_size_is_refused(images: tuple[Path, Path]) -> None:
    model = mlflow.pyfunc.load_model(str(images[1]))

    with pytest.raises(
        MlflowException,
        match=r"An image has 7 bytes\. Expected 4320: the uint8 values of shape \(36, 40, 3\)",
    ):
        model.predict(pd.DataFrame({"observation": [b"1234567"]}))


def test_other_observations_cannot_be_sent_as_bytes(tmp_path: Path) -> None:
    with pytest.raises(
        MlflowException,
        match=r"base64 needs a policy whose only input is one uint8 image.*Use image_input=tensor",
    ):
        save(tmp_path / "model", "dqn", "vector", OFF_POLICY, image_input="base64")

    assert not (tmp_path / "model").exists()


def test_a_request_without_images_is_refused(images: tuple[Path, Path]) -> None:
    with pytest.raises(MlflowException, match=r"The request has no images\. Send at least one"):
        PolicyModel(mlflow_sb3.load_policy(str(images[1]))).predict(
            pd.DataFrame({"observation": []})
        )


def test_a_policy_without_state_has_no_reserved_keys(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "ppo", "Reserved", {"n_steps": 8, "batch_size": 8})
    samples = parity_inputs.sample_observations(RESERVED, 3)
    assert isinstance(samples, dict)

    served = mlflow.pyfunc.load_model(str(folder)).predict(
        {key: values.astype(np.float64) for key, values in samples.items()}
    )

    assert served.tolist() == mlflow_sb3.load_policy(str(folder)).predict(samples)[0].tolist()


def test_a_reserved_key_in_an_observation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        MlflowException,
        match=r"has the key 'cell', which is a reserved name in requests .* Rename the key",
    ):
        save(tmp_path / "model", "ppo_lstm", "Reserved", {"n_steps": 8, "batch_size": 8})


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Run ``mlflow models serve`` in a process and return its URL."""
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
            wait_until(
                lambda: process.poll() is not None or is_reachable(f"http://127.0.0.1:{port}/ping"),
                describe_failure=Path(log.name).read_text,
            )
            assert process.poll() is None, Path(log.name).read_text()
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PROCESS_TIMEOUT) as response:
        return json.load(response)["predictions"]


def post_invalid(url: str, body: dict[str, Any]) -> str:
    with pytest.raises(urllib.error.HTTPError, match="400") as caught:
        post(url, body)
    with caught.value as error:
        return error.read().decode()


@pytest.mark.process
def test_images_are_sent_as_base64_over_http(
    images: tuple[Path, Path], batch: NDArray[np.uint8]
) -> None:
    records = [{"observation": base64.b64encode(image.tobytes()).decode()} for image in batch]

    with serving(images[1]) as url:
        actions = post(url, {"dataframe_records": records})
        wrong = post_invalid(url, {"dataframe_records": [{"observation": "AAAA"}]})

    assert actions == mlflow.pyfunc.load_model(str(images[0])).predict(batch).tolist()
    assert "An image has 3 bytes. Expected 4320" in wrong


@pytest.mark.process
def test_dict_observations_are_sent_as_inputs_or_instances(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", "dqn", "Dict", OFF_POLICY)
    samples = parity_inputs.sample_observations(OBSERVATIONS["Dict"], 3)
    assert isinstance(samples, dict)
    columns = {key: values.tolist() for key, values in samples.items()}
    rows = [{key: values[row] for key, values in columns.items()} for row in range(3)]
    expected = mlflow_sb3.load_policy(str(folder)).predict(samples)[0].tolist()

    with serving(folder) as url:
        assert post(url, {"inputs": columns}) == expected
        assert post(url, {"instances": rows}) == expected
        outside = post_invalid(url, {"inputs": columns | {"number": [7, 7, 7]}})

    assert "observation.number has values outside of the space" in outside


@pytest.mark.process
def test_a_client_sends_the_state_and_receives_the_next_one(tmp_path: Path) -> None:
    hyperparams = {"n_steps": 16, "batch_size": 16, "policy_kwargs": {"lstm_hidden_size": 4}}
    folder = save(tmp_path / "model", "ppo_lstm", "vector", hyperparams)
    policy = mlflow_sb3.load_policy(str(folder))
    observations = np.random.default_rng(0).uniform(-1, 1, (4, 2, 3))
    state_arrays = {name: np.zeros((2, 1, 4)).tolist() for name in ("hidden", "cell")}
    state = None

    with serving(folder) as url:
        for step, batch in enumerate(observations):
            answer = post(
                url,
                {
                    "inputs": {
                        "observation": batch.tolist(),
                        "episode_start": [step == 0] * 2,
                        **state_arrays,
                    }
                },
            )
            state_arrays = {name: answer[name] for name in state_arrays}
            expected, state = policy.predict(batch, state)
            assert answer["action"] == expected.tolist()
        sampled = [
            post(
                url,
                {
                    "inputs": {
                        "observation": observations[0].tolist(),
                        "episode_start": [True] * 2,
                        **state_arrays,
                    },
                    "params": params,
                },
            )
            for params in ({"deterministic": False, "seed": 3}, {"deterministic": False, "seed": 3})
        ]

    assert sampled[0] == sampled[1]
