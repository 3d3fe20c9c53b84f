"""Every cell of the table in docs/support.md: trained, saved, and loaded where there is no PyTorch."""

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
from mlflow_sb3.algorithms import algorithms
from mlflow_sb3.envs import env_spec, spaces
from mlflow_sb3.flavor import onnx_export, source_env
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


def cells() -> dict[Cell, bool]:
    """The table: whether an algorithm goes together with an observation and an action."""
    rows = [
        line.strip("| ").split(" | ")
        for line in (ROOT / "docs" / "support.md").read_text().splitlines()
        if line.startswith("| ")
    ]
    _, _, *actions = rows[0]
    found: dict[Cell, bool] = {}
    for algo, observation, *supported in rows[2:]:
        found |= {
            (algo.strip("`"), observation, action): word == "yes"
            for action, word in zip(actions, supported, strict=True)
        }
    return found


CELLS = cells()


def described(cell: Cell) -> str:
    return env_spec.spec_to_json(
        gymnasium.make("Named-v0", observations=cell[1], actions=cell[2]).spec
    )


ACTING = """
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
    arrays = dict(np.load(folder.parent / "trials.npz"))
    answers = {}
    for size in (1, 7, 64, 256):
        parts = []
        for start in range(0, 256, size):
            rows = {name: array[start : start + size] for name, array in arrays.items()}
            state = [rows.pop(name).swapaxes(0, 1) for name in ("hidden", "cell") if name in rows]
            masks = rows.pop("action_masks", None)
            asked = rows.get("observation", rows)
            parts.append(policy.predict(asked, state or None, action_masks=masks)[0])
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
def acting() -> Iterator[subprocess.Popen[str]]:
    """A process without PyTorch, SB3 and Gymnasium, which may unpickle nothing; it answers for a model's folder with its actions."""
    settings = os.environ | {
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, "-c", ACTING]
    with subprocess.Popen(
        command, cwd=ROOT, env=settings, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def trials(cell: Cell) -> dict[str, Any]:
    """256 observations, and a state or masks where the policy has them."""
    space = environments.OBSERVATIONS[cell[1]]
    drawn = onnx_export.sample_observations(space, 256)
    arrays = dict(drawn) if isinstance(drawn, dict) else {"observation": drawn}
    rng = np.random.default_rng(1)
    if cell[0] == "ppo_lstm":
        arrays |= {
            name: rng.uniform(-1, 1, (256, 2, 16)).astype(np.float32) for name in ("hidden", "cell")
        }
    if cell[0] == "ppo_mask":
        with env_spec.make_from_spec(described(cell)) as env:
            arrays["action_masks"] = np.tile(env.get_wrapper_attr("action_masks")(), (256, 1))
    return arrays


def wanted_of(model: BaseAlgorithm, cell: Cell, arrays: dict[str, Any]) -> Any:
    """What SB3 does."""
    rows = dict(arrays)
    state = (
        tuple(rows.pop(name).swapaxes(0, 1) for name in ("hidden", "cell") if name in rows) or None
    )
    masks = rows.pop("action_masks", None)
    policy = SB3Policy.of(model, environments.OBSERVATIONS[cell[1]], environments.ACTIONS[cell[2]])
    return policy.predict(rows.get("observation", rows), state, action_masks=masks)[0]


@pytest.mark.matrix
@pytest.mark.parametrize(
    "cell", [cell for cell, supported in CELLS.items() if supported], ids="-".join
)
def test_an_agent_acts_without_torch_as_sb3_does(
    cell: Cell, acting: subprocess.Popen[str], tmp_path: Path
) -> None:
    description = described(cell)
    model = algorithms.build(cell[0], description, SMALL[cell[0]], seed=0).learn(16)
    mlflow_sb3.save_model(model, tmp_path / "model", environment=description)
    arrays = trials(cell)
    np.savez(tmp_path / "trials.npz", **arrays)
    wanted = wanted_of(model, cell, arrays)

    assert acting.stdin is not None
    assert acting.stdout is not None
    print(tmp_path / "model", file=acting.stdin, flush=True)
    assert acting.stdout.readline() == "done\n"

    for name, actions in np.load(tmp_path / "answers.npz").items():
        assert actions.shape == wanted.shape, name
        if cell[2] == "Box":
            space = environments.ACTIONS["Box"]
            assert isinstance(space, gymnasium.spaces.Box)
            assert (np.abs(actions - wanted) / (space.high - space.low)).max() <= 1e-5, name
        else:
            assert actions.tolist() == wanted.tolist(), name
        assert all(environments.ACTIONS[cell[2]].contains(action) for action in actions), name


@pytest.mark.parametrize(
    "cell", [cell for cell, supported in CELLS.items() if not supported], ids="-".join
)
def test_what_does_not_go_together_is_refused(cell: Cell) -> None:
    with pytest.raises(MlflowException, match=r"does not fit|refuses these hyperparameters"):
        algorithms.build(cell[0], described(cell), SMALL[cell[0]], seed=0)


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
def test_a_space_is_built_again_from_its_card(space: gymnasium.Space[Any]) -> None:
    again = spaces.rebuild_space(
        SpaceInfo.from_json(json.loads(json.dumps(asdict(spaces.describe_space(space)))))
    )

    assert spaces.describe_space(again).inputs.keys() == spaces.describe_space(space).inputs.keys()
    if isinstance(space, gymnasium.spaces.Box):
        assert (again.shape, again.dtype) == (space.shape, space.dtype)
    elif not isinstance(space, gymnasium.spaces.Dict):
        assert again == space


def test_the_origin_of_an_agent_is_its_raw_environment() -> None:
    description = described(("ppo", "Dict", "Discrete"))
    model = algorithms.build("ppo", description, SMALL["ppo"], seed=0)

    found = source_env.find_source_env(model)

    assert found.observation_space == environments.OBSERVATIONS["Dict"]
    assert found.action_space == environments.ACTIONS["Discrete"]
    assert json.loads(str(found.description))["id"] == "Named-v0"
