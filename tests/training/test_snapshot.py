"""Every algorithm goes on from a snapshot as if nothing had happened: the same weights, the same numbers."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from mlflow.exceptions import MlflowException
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter
from stable_baselines3.common.vec_env import VecNormalize

from mlflow_sb3.algorithms import algorithms
from mlflow_sb3.envs import env_spec
from mlflow_sb3.runs.signals import Interrupted, Stop
from mlflow_sb3.tracking import snapshot_header
from mlflow_sb3.training import loop, snapshot, snapshot_writer
from mlflow_sb3.training.loop import TrainingResult
from mlflow_sb3.training.snapshot import SnapshotState
from mlflow_sb3.training.snapshot_writer import SnapshotWriter

OFF: dict[str, Any] = {"learning_starts": 50, "batch_size": 16, "buffer_size": 250, "train_freq": 8}
SHORT: dict[str, Any] = {"n_steps": 32, "batch_size": 32}
OU: dict[str, Any] = {"noise_type": "ornstein-uhlenbeck", "noise_std": 0.5}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "a2c": ("a2c", "CartPole-v1", {"n_steps": 1}),
    "ars, schedule": ("ars", "CartPole-v1", {"n_delta": 2, "learning_rate": "lin_0.02"}),
    "crossq": ("crossq", "Pendulum-v1", OFF),
    "ddpg, several environments, OU noise": ("ddpg", "Pendulum-v1", OFF | OU | {"n_envs": 2}),
    "dqn, buffer overwritten": ("dqn", "CartPole-v1", OFF),
    "dqn, buffer hardly filled": ("dqn", "CartPole-v1", OFF | {"buffer_size": 50_000}),
    "dqn, whole episodes, memory saved": (
        "dqn",
        "CartPole-v1",
        OFF
        | {
            "train_freq": [1, "episode"],
            "optimize_memory_usage": True,
            "replay_buffer_kwargs": {"handle_timeout_termination": False},
        },
    ),
    "ppo, several environments": ("ppo", "CartPole-v1", SHORT | {"n_envs": 2}),
    "ppo, gSDE, VecNormalize, schedule": (
        "ppo",
        "Pendulum-v1",
        SHORT | {"use_sde": True, "normalize": True, "learning_rate": "lin_0.001"},
    ),
    "ppo, integers": ("ppo", "FrozenLake-v1", SHORT),
    "ppo_lstm": ("ppo_lstm", "CartPole-v1", SHORT),
    "ppo_mask": ("ppo_mask", "tests.environments:MaskedCartPole-v0", SHORT),
    "qrdqn": ("qrdqn", "CartPole-v1", OFF),
    "sac": ("sac", "Pendulum-v1", OFF),
    "sac, gSDE": ("sac", "Pendulum-v1", OFF | {"use_sde": True}),
    "td3, OU noise": ("td3", "Pendulum-v1", OFF | OU),
    "tqc": ("tqc", "Pendulum-v1", OFF),
    "trpo": ("trpo", "CartPole-v1", {"n_steps": 32, "batch_size": 32}),
}
TIMESTEPS = 300
UNLIKE = ("time/fps", "time/time_elapsed")


class Numbers(KVWriter):
    """What SB3 logs, but for the clock."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, str, float]] = []

    @property
    def curves(self) -> list[tuple[int, str, float]]:
        """Every key's values in the order of training; an agent's score comes when it has played, beside the training."""
        return sorted(self.rows, key=itemgetter(1))

    def write(
        self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0
    ) -> None:
        assert isinstance(key_excluded, dict)
        self.rows += [
            (step, key, float(value)) for key, value in key_values.items() if key not in UNLIKE
        ]

    def close(self) -> None:
        pass


class StopAt(Stop):
    """A signal that comes before a rollout, counted from 1."""

    def __init__(self, rollout: int) -> None:
        self._left = rollout

    @property
    def requested(self) -> int | None:  # type: ignore[override]
        return 15 if self._left == 1 else None

    def obey(self) -> None:
        if self._left == 1:
            raise Interrupted(15)
        self._left -= 1


def described(case: str) -> str:
    """The environment, with short episodes."""
    return env_spec.compose_spec(CASES[case][1], kwargs={"max_episode_steps": 10})


def train(case: str, **kwargs: Any) -> tuple[TrainingResult, Numbers]:
    algo, _, hyperparams = CASES[case]
    numbers = kwargs.pop("numbers", None) or Numbers()
    return loop.train(
        described(case),
        algo,
        timesteps=TIMESTEPS,
        seed=1,
        hyperparams=hyperparams,
        writers=[numbers],
        **kwargs,
    ), numbers


def interrupt(case: str, rollout: int, folder: Path, **kwargs: Any) -> Numbers:
    numbers, kept = Numbers(), SnapshotWriter(folder, every=10**9)
    with pytest.raises(Interrupted, match="SIGTERM"):
        train(case, numbers=numbers, shelf=kept, stop=StopAt(rollout), **kwargs)
    kept.wait()
    return numbers


def load(case: str, folder: Path) -> SnapshotState:
    path = next(snapshot_writer.valid_snapshots(folder))
    return snapshot.load_snapshot(
        path, snapshot.rebuild_envs(described(case), snapshot_header.read_header(path))
    )


@pytest.mark.parametrize("case", CASES)
def test_what_goes_on_from_a_snapshot_ends_as_if_nothing_had_happened(
    case: str, tmp_path: Path
) -> None:
    whole, expected = train(case)
    for rollout in (1, 2, 4):
        folder = tmp_path / str(rollout)

        numbers = interrupt(case, rollout, folder)
        resumed, _ = train(case, numbers=numbers, resumed=load(case, folder))

        assert (resumed.last_digest, resumed.digest) == (whole.last_digest, whole.digest), rollout
        assert numbers.curves == expected.curves, rollout


def test_a2c_goes_on_between_two_of_its_dumps_which_are_a_hundred_rollouts_apart(
    tmp_path: Path,
) -> None:
    expected, numbers = Numbers(), Numbers()
    a2c: dict[str, Any] = {
        "description": described("a2c"),
        "algo": "a2c",
        "timesteps": 1600,
        "seed": 1,
    }
    whole = loop.train(**a2c, writers=[expected])
    kept = SnapshotWriter(tmp_path, every=10**9)

    with pytest.raises(Interrupted, match="SIGTERM"):
        loop.train(**a2c, writers=[numbers], shelf=kept, stop=StopAt(2))
    resumed = loop.train(**a2c, writers=[numbers], resumed=load("a2c", tmp_path))

    assert resumed.last_digest == whole.last_digest
    assert numbers.curves == expected.curves
    assert [step for step, key, _ in numbers.rows if key == "time/iterations"] == [500, 1000, 1500]


def test_a_training_that_is_killed_while_it_chooses_chooses_the_same(tmp_path: Path) -> None:
    case = "ppo, several environments"
    whole, expected = train(case)
    kept = SnapshotWriter(tmp_path)
    train(case, shelf=kept)
    kept.wait()

    state = load(case, tmp_path)
    resumed, numbers = train(case, resumed=state)

    assert state["learned"]
    assert (resumed.last_digest, resumed.digest) == (whole.last_digest, whole.digest)
    assert [candidate.returns for candidate in resumed.candidates] == [
        candidate.returns for candidate in whole.candidates
    ]
    assert numbers.rows == []
    assert expected.rows


def test_snapshots_change_nothing(tmp_path: Path) -> None:
    plain, expected = train("sac")

    watched, numbers = train("sac", shelf=SnapshotWriter(tmp_path, every=1))

    assert (watched.last_digest, numbers.curves) == (plain.last_digest, expected.curves)


class Unpicklable(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment with a handle that no process can hand to another."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._handle = (number for number in range(3))


class Refusing(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment that fails with an error of its own when it is to be pickled."""

    def __getstate__(self) -> dict[str, Any]:
        raise KeyError("renderer")


class Remote(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment that asks its simulator when it is to be pickled; what fails then is no fault of the disk."""

    def __getstate__(self) -> dict[str, Any]:
        raise ConnectionRefusedError("simulator")


PICTURE = "tests.environments:Picture-v0"
REWARDS_ALONE: dict[str, Any] = {"normalize": {"norm_obs": False, "norm_reward": True}}


@pytest.mark.parametrize(
    ("env_id", "algo", "hyperparams"),
    [
        ("CartPole-v1", "dqn", OFF),
        ("CartPole-v1", "ppo", SHORT | {"n_envs": 2, "normalize": True}),
        (PICTURE, "dqn", OFF),
        (PICTURE, "ppo", SHORT | REWARDS_ALONE | {"n_envs": 2, "n_epochs": 1}),
    ],
)
def test_environments_that_cannot_be_pickled_begin_new_episodes(
    env_id: str,
    algo: str,
    hyperparams: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    description = env_spec.compose_spec(
        env_id, kwargs={"max_episode_steps": 10}, wrappers=[f"{__name__}:Unpicklable"]
    )
    kept = SnapshotWriter(tmp_path, every=10**9)
    with pytest.raises(Interrupted, match="SIGTERM"):
        loop.train(
            description,
            algo,
            timesteps=TIMESTEPS,
            hyperparams=hyperparams,
            shelf=kept,
            stop=StopAt(3),
        )
    kept.wait()
    path = next(snapshot_writer.valid_snapshots(tmp_path))
    header = snapshot_header.read_header(path)

    state = snapshot.load_snapshot(path, snapshot.rebuild_envs(description, header))
    learned = state["model"].get_vec_normalize_env()
    counted = learned.ret_rms.count if isinstance(learned, VecNormalize) else None
    resumed = loop.train(
        description, algo, timesteps=TIMESTEPS, hyperparams=hyperparams, resumed=state
    )

    assert header.inexact is not None
    assert (
        f"environment {env_id.rpartition(':')[2]} cannot be pickled (TypeError: cannot pickle 'generator' object)"
        in header.inexact
    )
    assert caplog.text.count("is not exact") == 1
    assert max(candidate.step for candidate in resumed.candidates) >= TIMESTEPS
    assert counted is None or counted > 64


@pytest.mark.parametrize(
    ("wrapper", "error"),
    [("Refusing", "KeyError: 'renderer'"), ("Remote", "ConnectionRefusedError: simulator")],
    ids=["error", "OSError"],
)
def test_whatever_an_environment_raises_when_it_is_pickled_training_goes_on(
    wrapper: str, error: str, tmp_path: Path
) -> None:
    description = env_spec.compose_spec("CartPole-v1", wrappers=[f"{__name__}:{wrapper}"])
    kept = SnapshotWriter(tmp_path, every=1)

    loop.train(description, "ppo", timesteps=64, hyperparams=SHORT, shelf=kept)

    inexact = [
        snapshot_header.read_header(path).inexact
        for path in snapshot_writer.valid_snapshots(tmp_path)
    ]
    assert inexact == [f"environment CartPole-v1 cannot be pickled ({error})"] * 2


def test_new_environments_that_are_wrapped_otherwise_are_refused(tmp_path: Path) -> None:
    description = env_spec.compose_spec(PICTURE, wrappers=[f"{__name__}:Unpicklable"])
    kept = SnapshotWriter(tmp_path, every=10**9)
    with pytest.raises(Interrupted, match="SIGTERM"):
        loop.train(
            description, "dqn", timesteps=TIMESTEPS, hyperparams=OFF, shelf=kept, stop=StopAt(1)
        )
    kept.wait()

    path = next(snapshot_writer.valid_snapshots(tmp_path))

    with pytest.raises(
        MlflowException,
        match="with VecTransposeImage at place 0, and the new ones are DummyVecEnv;",
    ):
        snapshot.load_snapshot(path, algorithms.vec_env(description, {}))
    with pytest.raises(
        MlflowException, match="with VecTransposeImage at place 0, and the new ones are missing;"
    ):
        snapshot.load_snapshot(path)


def test_gymnasiums_ezpickle_does_not_hide_what_happened_in_an_environment(tmp_path: Path) -> None:
    """It pickles the arguments of the constructor alone: such an environment would begin anew without a word."""
    env_id = "tests.environments:Remembering-v0"
    whole = loop.train(env_spec.compose_spec(env_id), "ppo", timesteps=128, hyperparams=SHORT)
    kept = SnapshotWriter(tmp_path, every=10**9)
    with pytest.raises(Interrupted, match="SIGTERM"):
        loop.train(
            env_spec.compose_spec(env_id),
            "ppo",
            timesteps=128,
            hyperparams=SHORT,
            shelf=kept,
            stop=StopAt(3),
        )
    kept.wait()

    resumed = loop.train(
        env_spec.compose_spec(env_id),
        "ppo",
        timesteps=128,
        resumed=snapshot.load_snapshot(next(snapshot_writer.valid_snapshots(tmp_path))),
    )

    assert resumed.last_digest == whole.last_digest


class Counting(BaseCallback):
    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def _on_step(self) -> bool:
        self.steps += 1
        return True


def test_callbacks_go_on_as_they_were(tmp_path: Path) -> None:
    interrupt("ppo, several environments", 3, tmp_path, callbacks=[Counting()])
    counting = Counting()

    train(
        "ppo, several environments",
        callbacks=[counting],
        resumed=load("ppo, several environments", tmp_path),
    )

    assert counting.steps == 320 // 2  # five rollouts of 32 steps in two environments


def test_a_buffer_takes_the_room_of_what_is_in_it(tmp_path: Path) -> None:
    interrupt("dqn, buffer hardly filled", 4, tmp_path)

    path = next(snapshot_writer.valid_snapshots(tmp_path))

    assert path.stat().st_size < 1_000_000  # 50 000 transitions take 2.4 MB
    assert load("dqn, buffer hardly filled", tmp_path)[
        "model"
    ].replay_buffer.observations.shape == (50_000, 1, 4)


def test_a_file_that_is_no_snapshot_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("something else\n")

    with pytest.raises(MlflowException, match="file is no snapshot of a training"):
        snapshot_header.read_header(tmp_path / "file")
