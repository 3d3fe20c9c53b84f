from __future__ import annotations

import io
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from mlflow_sb3.training import snapshot_pickle, snapshot_writer
from tests.training.training_cases import interrupt_case, load_case


class FullDisk(io.BytesIO):
    """File that cannot be written."""

    def write(self, _: Any) -> int:
        raise OSError(28, "No space left on device")


class Unpicklable:
    def __reduce__(self) -> str:
        raise ConnectionRefusedError("simulator")


def dump_and_load(value: Any) -> Any:
    file = io.BytesIO()
    snapshot_pickle.dump_state({"value": value}, file, external=[])
    file.seek(0)
    return snapshot_pickle.load_state(file, external=[])["value"]


def make_buffer(n_transitions: int) -> ReplayBuffer:
    box, discrete = gymnasium.spaces.Box(-1, 1, (3,)), gymnasium.spaces.Discrete(2)
    buffer = ReplayBuffer(10, box, discrete, device="cpu")
    for number in range(n_transitions):
        observation = np.full((1, 3), number, np.float32)
        reward, is_done = np.array([float(number)]), np.array([False])
        buffer.add(observation, observation + 1, np.array([1]), reward, is_done, [{}])
    return buffer


@pytest.mark.parametrize("n_transitions", [0, 4, 9, 10, 13])
def test_a_replay_buffer_has_the_same_content_after_loading(n_transitions: int) -> None:
    buffer = make_buffer(n_transitions)

    loaded = dump_and_load(buffer)

    assert (loaded.pos, loaded.full) == (buffer.pos, buffer.full)
    for name in ("observations", "next_observations", "actions", "rewards", "dones"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(buffer, name))


def test_an_almost_empty_buffer_takes_little_space(tmp_path: Path) -> None:
    case = "dqn, almost empty buffer"
    interrupt_case(case, 4, tmp_path)

    path = next(snapshot_writer.list_valid_snapshots(tmp_path))
    buffer = vars(load_case(case, tmp_path).model)["replay_buffer"]

    assert path.stat().st_size < 1_000_000  # 50 000 transitions take 2.4 MB
    assert buffer.observations.shape == (50_000, 1, 4)


def test_vec_normalize_keeps_its_running_returns() -> None:
    vec_env = VecNormalize(DummyVecEnv([lambda: gymnasium.make("CartPole-v1")]))
    vec_env.reset()
    vec_env.step(np.array([1]))

    loaded = dump_and_load(vec_env)

    assert loaded.returns.tolist() == vec_env.returns.tolist() == [1.0]
    assert set(loaded.class_attributes) == set(vec_env.class_attributes)


def test_an_external_object_is_replaced_by_a_new_object() -> None:
    old, new = make_buffer(1), make_buffer(2)
    file = io.BytesIO()

    snapshot_pickle.dump_state({"buffer": old}, file, external=[old])
    file.seek(0)

    assert snapshot_pickle.load_state(file, external=[new])["buffer"] is new


def test_an_external_object_of_another_class_is_rejected() -> None:
    old = make_buffer(1)
    file = io.BytesIO()
    snapshot_pickle.dump_state({"buffer": old}, file, external=[old])
    file.seek(0)

    with pytest.raises(MlflowException, match=r"has the VecEnv ReplayBuffer .* are: dict"):
        snapshot_pickle.load_state(file, external=[{}])


def test_an_error_of_the_disk_is_raised_unchanged() -> None:
    with pytest.raises(OSError, match="No space left on device"):
        snapshot_pickle.dump_state({}, FullDisk(), external=[])


def test_an_os_error_of_an_object_is_a_pickling_error() -> None:
    with pytest.raises(pickle.PicklingError, match="ConnectionRefusedError: simulator"):
        snapshot_pickle.dump_state({"value": Unpicklable()}, io.BytesIO(), external=[])


def test_attributes_that_cannot_be_pickled_are_a_pickling_error() -> None:
    noise = SimpleNamespace(handle=Unpicklable())

    with pytest.raises(pickle.PicklingError, match="ConnectionRefusedError: simulator"):
        snapshot_pickle.pickle_attributes(noise)
