"""Test every cell of the table in docs/support.md.

Each agent is trained, saved, and loaded in a process without PyTorch. The default run tests one
cell of each algorithm. The marker ``matrix`` selects the others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from stable_baselines3.common.base_class import BaseAlgorithm

import mlflow_sb3
from mlflow_sb3.algorithms import algorithms, builder
from mlflow_sb3.envs import env_spec, spaces
from mlflow_sb3.flavor import parity_inputs, source_env
from mlflow_sb3.flavor.sb3_policy import SB3Policy
from mlflow_sb3.inference.policy_inputs import SpaceInfo
from tests import ROOT, environments

OFF_POLICY = {"learning_starts": 8, "batch_size": 8, "buffer_size": 100}
ON_POLICY = {"n_steps": 16, "batch_size": 16}
SMALL: dict[str, dict[str, Any]] = {
    "a2c": {},
    "ars": {"n_delta": 2},
    "ppo_lstm": {**ON_POLICY, "policy_kwargs": {"lstm_hidden_size": 16, "n_lstm_layers": 2}},
    **dict.fromkeys(("ppo", "ppo_mask", "trpo"), ON_POLICY),
    **dict.fromkeys(("crossq", "ddpg", "dqn", "qrdqn", "sac", "td3", "tqc"), OFF_POLICY),
}
Cell = tuple[str, str, str]


def read_cells() -> dict[Cell, bool]:
    """Read the table: whether an algorithm supports an observation space and an action space."""
    rows = [
        line.strip("| ").split(" | ")
        for line in (ROOT / "docs" / "support.md").read_text().splitlines()
        if line.startswith("| ")
    ]
    _, _, *actions = rows[0]
    supported_cells: dict[Cell, bool] = {}
    for algo, observation, *supported in rows[2:]:
        supported_cells |= {
            (algo.strip("`"), observation, action): word == "yes"
            for action, word in zip(actions, supported, strict=True)
        }
    return supported_cells


CELLS = read_cells()
SUPPORTED = [cell for cell, is_supported in CELLS.items() if is_supported]


def list_default_cells() -> set[Cell]:
    """Return one supported cell of each algorithm, with different spaces."""
    default: set[Cell] = set()
    for index, algo in enumerate(SMALL):
        own = [cell for cell in SUPPORTED if cell[0] == algo]
        default.add(own[5 * index % len(own)])
    return default


DEFAULT = list_default_cells()


def describe_env(cell: Cell) -> str:
    """Return the EnvSpec JSON of an environment with the spaces of a cell."""
    return env_spec.spec_to_json(
        gymnasium.make("Named-v0", observations=cell[1], actions=cell[2]).spec
    )


PREDICT = """
import json, sys
from pathlib import Path
for name in ("torch", "stable_baselines3", "sb3_contrib", "gymnasium"):
    sys.modules[name] = None
import mlflow.pyfunc
import numpy as np
import mlflow_sb3

def refuse(event, args):
    if event == "pickle.find_class":
        raise RuntimeError("unpickled")

sys.addaudithook(refuse)
for line in sys.stdin:
    folder = Path(line.strip())
    policy, served = mlflow_sb3.load_policy(str(folder)), mlflow.pyfunc.load_model(str(folder))
    arrays = dict(np.load(folder.parent / "inputs.npz"))
    answers = {}
    for size in (1, 7, 64, 256):
        parts = []
        for start in range(0, 256, size):
            rows = {name: array[start : start + size] for name, array in arrays.items()}
            state = [rows.pop(name).swapaxes(0, 1) for name in ("hidden", "cell") if name in rows]
            masks = rows.pop("action_masks", None)
            observation = rows.get("observation", rows)
            parts.append(policy.predict(observation, state or None, action_masks=masks)[0])
        answers[f"policy{size}"] = np.concatenate(parts)
    declared = {spec.name or "observation": spec.type for spec in served.metadata.signature.inputs}
    request = {name: array.astype(declared[name]) for name, array in arrays.items()}
    if "hidden" in request:
        request["episode_start"] = np.zeros(256, bool)
    answer = served.predict(request if set(request) != {"observation"} else request["observation"])
    answers["pyfunc"] = answer["action"] if isinstance(answer, dict) else answer
    np.savez(folder.parent / "answers.npz", **answers)
    print("done", flush=True)
"""


@pytest.fixture(scope="module")
def predictor() -> Iterator[subprocess.Popen[str]]:
    """A process without PyTorch, SB3 and Gymnasium, which must not unpickle.

    It reads the folders of models from standard input. For each, it predicts ``inputs.npz`` and
    writes the actions to ``answers.npz``.
    """
    settings = os.environ | {
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, "-c", PREDICT]
    with subprocess.Popen(
        command, cwd=ROOT, env=settings, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def make_inputs(cell: Cell) -> dict[str, Any]:
    """Return 256 observations, and the LSTM state or action masks that the policy needs."""
    space = environments.OBSERVATIONS[cell[1]]
    samples = parity_inputs.sample_observations(space, 256)
    arrays = dict(samples) if isinstance(samples, dict) else {"observation": samples}
    rng = np.random.default_rng(1)
    if cell[0] == "ppo_lstm":
        arrays |= {
            name: rng.uniform(-1, 1, (256, 2, 16)).astype(np.float32) for name in ("hidden", "cell")
        }
    if cell[0] == "ppo_mask":
        with env_spec.make_from_spec(describe_env(cell)) as env:
            arrays["action_masks"] = np.tile(env.get_wrapper_attr("action_masks")(), (256, 1))
    return arrays


def predict_with_sb3(model: BaseAlgorithm, cell: Cell, arrays: dict[str, Any]) -> Any:
    """Return the actions of SB3 itself."""
    rows = dict(arrays)
    state = (
        tuple(rows.pop(name).swapaxes(0, 1) for name in ("hidden", "cell") if name in rows) or None
    )
    masks = rows.pop("action_masks", None)
    policy = SB3Policy.from_algorithm(
        model, environments.OBSERVATIONS[cell[1]], environments.ACTIONS[cell[2]]
    )
    return policy.predict(rows.get("observation", rows), state, action_masks=masks)[0]


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(cell, marks=() if cell in DEFAULT else pytest.mark.matrix, id="-".join(cell))
        for cell in SUPPORTED
    ],
)
def test_an_agent_acts_like_sb3_without_torch(
    cell: Cell, predictor: subprocess.Popen[str], tmp_path: Path
) -> None:
    description = describe_env(cell)
    model = builder.build_algorithm(cell[0], description, SMALL[cell[0]], seed=0).learn(16)
    mlflow_sb3.save_model(model, tmp_path / "model", environment=description)
    arrays = make_inputs(cell)
    np.savez(tmp_path / "inputs.npz", **arrays)
    expected = predict_with_sb3(model, cell, arrays)

    assert predictor.stdin is not None
    assert predictor.stdout is not None
    print(tmp_path / "model", file=predictor.stdin, flush=True)
    assert predictor.stdout.readline() == "done\n"

    for name, actions in np.load(tmp_path / "answers.npz").items():
        assert actions.shape == expected.shape, name
        if cell[2] == "Box":
            space = environments.ACTIONS["Box"]
            assert isinstance(space, gymnasium.spaces.Box)
            assert (np.abs(actions - expected) / (space.high - space.low)).max() <= 1e-5, name
        else:
            assert actions.tolist() == expected.tolist(), name
        assert all(environments.ACTIONS[cell[2]].contains(action) for action in actions), name


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell not in SUPPORTED], ids="-".join)
def test_unsupported_spaces_are_refused(cell: Cell) -> None:
    with pytest.raises(
        MlflowException,
        match=r"does not support|has no \w+Policy|cannot be built with these hyperparameters",
    ):
        builder.build_algorithm(cell[0], describe_env(cell), SMALL[cell[0]], seed=0)


def test_the_table_has_every_algorithm_and_every_space() -> None:
    assert {cell[0] for cell in CELLS} == set(algorithms.ALGORITHMS)
    assert {cell[1] for cell in CELLS} == set(environments.OBSERVATIONS)
    assert {cell[2] for cell in CELLS} == set(environments.ACTIONS)
    assert len(CELLS) == len(algorithms.ALGORITHMS) * len(environments.OBSERVATIONS) * len(
        environments.ACTIONS
    )


@pytest.mark.parametrize(
    "space", [*environments.OBSERVATIONS.values(), *environments.ACTIONS.values()], ids=str
)
def test_a_space_is_rebuilt_from_agent_json(space: gymnasium.Space[Any]) -> None:
    rebuilt = spaces.rebuild_space(
        SpaceInfo.from_json(json.loads(json.dumps(asdict(spaces.describe_space(space)))))
    )

    assert (
        spaces.describe_space(rebuilt).inputs.keys() == spaces.describe_space(space).inputs.keys()
    )
    if isinstance(space, gymnasium.spaces.Box):
        assert (rebuilt.shape, rebuilt.dtype) == (space.shape, space.dtype)
    elif not isinstance(space, gymnasium.spaces.Dict):
        assert rebuilt == space


def test_the_source_env_of_an_agent_is_its_raw_environment() -> None:
    description = describe_env(("ppo", "Dict", "Discrete"))
    model = builder.build_algorithm("ppo", description, SMALL["ppo"], seed=0)

    source = source_env.find_source_env(model)

    assert source.observation_space == environments.OBSERVATIONS["Dict"]
    assert source.action_space == environments.ACTIONS["Discrete"]
    assert json.loads(str(source.description))["id"] == "Named-v0"
