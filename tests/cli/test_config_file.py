from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pytest

from mlflow_sb3.cli.evaluate import evaluate
from mlflow_sb3.cli.train import train
from mlflow_sb3.registry.model_version import Version
from tests.cli.commands import TINY_TRAINING, assert_fails, get_last_run, invoke, succeed

DIGEST_TAG = "mlflow_sb3.policy_digest"
TEXT = """
algo: PPO
timesteps: 64
preset: none
hyperparams: {n_steps: 64}
selection: best
eval_episodes: 5
seed: 3
"""
"""The options of TINY_TRAINING, and a seed."""


def write(folder: Path, text: str) -> str:
    path = folder / "agent.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.usefixtures("store")
def test_a_file_and_the_same_options_make_the_same_agent(tmp_path: Path) -> None:
    by_options = succeed(train, *TINY_TRAINING, "--seed", "3")
    by_file = succeed(train, "--config", write(tmp_path, TEXT))

    digests = {run.data.tags[DIGEST_TAG] for run in (by_options, by_file)}
    assert len(digests) == 1
    assert by_file.data.params["sb3/seed"] == "3"
    uri = f"{by_file.info.artifact_uri}/config.yaml"
    assert mlflow.artifacts.load_text(uri) == TEXT


@pytest.mark.usefixtures("store")
def test_an_option_overrides_the_file_unless_a_project_passes_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mlflow.start_run() as created:  # as mlflow run does
        pass
    monkeypatch.setenv("MLFLOW_RUN_ID", created.info.run_id)
    options = ("--seed", "4", "--algo", "dqn", "--env-kwargs", "{}")

    run = succeed(train, "--config", write(tmp_path, TEXT), *options)

    params = run.data.params
    assert (params["sb3/seed"], params["sb3/algo"]) == ("4", "ppo")
    assert json.loads(params["sb3/env_kwargs"]) == {}


@pytest.mark.usefixtures("store")
def test_an_option_with_its_default_overrides_the_file_outside_of_a_project(tmp_path: Path) -> None:
    run = succeed(train, "--config", write(tmp_path, TEXT), "--seed", "0")

    assert run.data.params["sb3/seed"] == "0"


@pytest.mark.usefixtures("store")
def test_numbers_are_read_as_in_json(tmp_path: Path) -> None:
    text = TEXT.replace("timesteps: 64", "timesteps: 6.4e1")
    text = text.replace("{n_steps: 64}", "{n_steps: 64, learning_rate: 1e-3}")

    run = succeed(train, "--config", write(tmp_path, text))

    assert run.data.params["sb3/timesteps"] == "64"
    assert run.data.params["sb3/learning_rate"] == "0.001"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("algos: ppo", "'algos' is no parameter. Did you mean 'algo'? Use env, algo,"),
        ("- algo", "The file is not a mapping. Write one parameter per line"),
        ("algo: [", "The file is not valid YAML: while parsing"),
        ("timesteps: many", "'many' is not a valid integer range."),
        ("seed: 0.7", "'0.7' is not a valid integer range."),
        ("seed: true", "'True' is not a valid integer range."),
        ("env: {a: b}", "{'a': 'b'} is not a text."),
        ("hyperparams: [1]", "'[1]' is not a JSON object."),
        ("config: other.yaml", "'config' is no parameter."),
    ],
)
@pytest.mark.usefixtures("store")
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    result = invoke(train, "--config", write(tmp_path, text))

    assert_fails(result, 2, message)
    assert get_last_run().info.status == "FAILED"


def test_a_value_of_null_is_the_default(champion: Version, tmp_path: Path) -> None:
    path = write(tmp_path, f"model_name: {champion.name}\nversion: null\nepisodes: 2")

    run = succeed(evaluate, "--config", path)

    assert run.data.metrics["evaluation/episodes"] == 2
