from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from gymnasium import spaces
from mlflow.pyfunc.scoring_server import infer_and_parse_data
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm

import mlflow_sb3
from mlflow_sb3.flavor import card_writer, model_writer
from mlflow_sb3.runs.git import COMMIT_TAG
from tests.flavor.agents import BOX, build_untrained

PYTHON = re.compile(r"```python\n(.*?)\n```", re.DOTALL)
REQUEST = re.compile(r"  -d '(.*)'\n")
AGENTS: dict[str, tuple[spaces.Space[Any], spaces.Space[Any], dict[str, Any]]] = {
    "Box": (BOX, spaces.Discrete(2), {}),
    "Discrete": (spaces.Discrete(3, start=4), BOX, {}),
    "MultiDiscrete": (spaces.MultiDiscrete([2, 3], start=[1, 5]), BOX, {}),
    "MultiBinary": (spaces.MultiBinary(3), BOX, {}),
    "Dict": (spaces.Dict({"a": BOX, "b": spaces.Discrete(2)}), BOX, {"policy": "MultiInputPolicy"}),
    "LSTM": (BOX, BOX, {"algo": RecurrentPPO, "policy": "MlpLstmPolicy"}),
}
"""Observation space, action space and further arguments of ``build_untrained``."""


def read_card(folder: Path) -> str:
    return (folder / "MODEL_CARD.md").read_text()


def run_python(card: str, folder: Path) -> dict[str, Any]:
    """Run the Python code of a saved model's card, and return its variables."""
    (code,) = PYTHON.findall(card)
    variables: dict[str, Any] = {}
    # The code comes from the card that is tested.
    exec(code.replace("path/of/this/folder", str(folder)), variables)  # noqa: S102
    return variables


@pytest.mark.filterwarnings("ignore:The model has no environment to play in")
@pytest.mark.parametrize("name", AGENTS)
def test_the_python_code_and_the_request_of_the_card_work(name: str, tmp_path: Path) -> None:
    observation_space, action_space, arguments = AGENTS[name]
    model = build_untrained(observation_space, action_space, **arguments)
    mlflow_sb3.save_model(model, tmp_path / "model")
    card = read_card(tmp_path / "model")

    action = run_python(card, tmp_path / "model")["action"]

    assert np.shape(action) == action_space.shape
    if name == "LSTM":  # a state of many numbers
        request = (tmp_path / "model" / "serving_input_example.json").read_text()
        assert "-d @serving_input_example.json" in card
    else:
        (request,) = REQUEST.findall(card)
    served = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    schema = served.metadata.get_input_schema()
    assert len(served.predict(infer_and_parse_data(json.loads(request), schema))) >= 1


def test_the_card_of_a_script_has_what_the_algorithm_knows(saved: Path) -> None:
    card = read_card(saved)

    assert card.startswith("# PPO agent for CartPole-v1\n")
    assert "| environment steps | 64 |" in card
    assert "| seed | 0 |" in card
    assert "| `n_steps` | `64` |" in card
    assert "| `learning_rate` | `0.0003` |" in card
    assert "| `clip_range` | `0.2` |" in card
    assert "## Returns" not in card
    assert "MLflow run" not in card
    assert "commit" not in card


def test_a_class_in_the_hyperparameters_has_its_name(ppo: PPO) -> None:
    def read(policy_kwargs: dict[str, Any]) -> str | None:
        model: BaseAlgorithm = PPO("MlpPolicy", "CartPole-v1", policy_kwargs=policy_kwargs)
        return card_writer.read_facts(model).hyperparams.get("policy_kwargs")

    assert read({"net_arch": [8]}) == '{"net_arch": [8]}'
    assert read({"optimizer_class": type(ppo.policy.optimizer)}) == '{"optimizer_class": "Adam"}'
    assert "policy_kwargs" not in card_writer.read_facts(ppo).hyperparams


@pytest.mark.usefixtures("store")
def test_a_logged_model_names_its_run_and_the_commit_of_the_script(ppo: PPO) -> None:
    with mlflow.start_run(tags={COMMIT_TAG: "c0ffee"}) as run:
        info = mlflow_sb3.log_model(ppo, name="agent")
    card = mlflow.artifacts.load_text(f"{info.artifact_path}/MODEL_CARD.md")

    assert f"| MLflow run | `{run.info.run_id}` |" in card
    assert "| commit | `c0ffee` |" in card
    assert f'load_policy("models:/{info.model_id}")' in card


def test_the_commit_of_another_run_is_not_shown(ppo: PPO, store: str) -> None:
    with mlflow.start_run() as run:
        pass
    with mlflow.start_run(tags={COMMIT_TAG: "c0ffee"}):
        info = mlflow_sb3.log_model(ppo, name="agent", run_id=run.info.run_id)
    card = mlflow.artifacts.load_text(f"{info.artifact_path}/MODEL_CARD.md")

    assert f"| MLflow run | `{run.info.run_id}` |" in card
    assert "commit" not in card


def test_the_learning_curve_is_a_file_of_the_model(ppo: PPO, tmp_path: Path) -> None:
    facts = replace(card_writer.read_facts(ppo), learning_curve=b"a picture")

    model_writer.prepare_model(ppo, None, facts=facts).save_model(tmp_path / "model")

    assert (tmp_path / "model" / "learning_curve.png").read_bytes() == b"a picture"
    assert "![Learning curve](learning_curve.png)" in read_card(tmp_path / "model")
