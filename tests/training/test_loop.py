from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from mlflow.exceptions import MlflowException
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback

from mlflow_sb3.algorithms import algorithms, zoo_presets
from mlflow_sb3.envs import seeds
from mlflow_sb3.training import loop
from mlflow_sb3.training.checkpoint import Checkpoint
from mlflow_sb3.training.loop import TrainingResult

HYPERPARAMS = zoo_presets.find_preset("dqn", "CartPole-v1").hyperparams | {
    "learning_starts": 100,
    "train_freq": 64,
    "gradient_steps": 16,
}


@pytest.fixture(scope="module")
def trained(cartpole: str) -> TrainingResult:
    return loop.train(cartpole, "dqn", timesteps=640, seed=3, hyperparams=HYPERPARAMS)


def weights(agent: bytes) -> dict[str, torch.Tensor]:
    return dict(DQN.load(io.BytesIO(agent)).policy.state_dict())


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def last(result: TrainingResult) -> Checkpoint:
    return max(result.candidates, key=lambda candidate: candidate.step)


def test_training_goes_the_same_way_as_bare_sb3_with_fused_adam(
    trained: TrainingResult, cartpole: str
) -> None:
    fused = HYPERPARAMS | {
        "policy_kwargs": HYPERPARAMS["policy_kwargs"] | {"optimizer_kwargs": {"fused": True}}
    }
    seed = seeds.generate_episode_seeds(3, "learning", 1)[0]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    bare = algorithms.build("dqn", cartpole, fused, seed=seed).learn(640)
    torch.set_num_threads(threads)

    assert equal(weights(last(trained).agent), dict(bare.policy.state_dict()))


@pytest.mark.parametrize("given", [{"fused": False}, {"foreach": True}])
def test_who_says_how_adam_works_has_it_so(given: dict[str, bool], cartpole: str) -> None:
    asked = {"n_steps": 64, "policy_kwargs": {"optimizer_kwargs": given}}

    by_itself = loop.train(cartpole, "ppo", timesteps=64, hyperparams={"n_steps": 64})
    as_asked = loop.train(cartpole, "ppo", timesteps=64, hyperparams=asked)

    assert by_itself.model.policy.optimizer.param_groups[0]["fused"]
    assert not as_asked.model.policy.optimizer.param_groups[0]["fused"]


def test_the_same_seed_keeps_the_same_agent(trained: TrainingResult, cartpole: str) -> None:
    again = loop.train(cartpole, "dqn", timesteps=640, seed=3, hyperparams=HYPERPARAMS)

    assert again.kept.step == trained.kept.step
    assert equal(weights(again.kept.agent), weights(trained.kept.agent))


def test_the_model_has_the_weights_of_the_kept_agent(trained: TrainingResult) -> None:
    assert equal(weights(trained.kept.agent), dict(trained.model.policy.state_dict()))


def test_the_best_and_the_last_agent_are_candidates(trained: TrainingResult) -> None:
    assert len(trained.candidates) == 8
    assert last(trained).step == 640
    assert trained.kept.score == max(
        candidate.score for candidate in trained.candidates if len(candidate.returns) == 270
    )


def test_the_table_has_the_candidates_in_the_order_of_training(trained: TrainingResult) -> None:
    table = trained.table()

    assert table["step"] == sorted(table["step"])
    assert table["kept"].count(True) == 1
    assert table["step"][table["kept"].index(True)] == trained.kept.step
    assert {len(column) for column in table.values()} == {8}


@pytest.mark.parametrize(("wanted", "before"), [(1, 2), (2, 1)])
def test_torch_threads_are_set_for_the_time_of_training(
    wanted: int, before: int, cartpole: str
) -> None:
    seen: list[int] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(before)

    loop.train(
        cartpole,
        "ppo",
        timesteps=64,
        hyperparams={"n_steps": 64},
        callbacks=[_Spy(seen)],
        torch_threads=wanted,
    )

    assert set(seen) == {wanted}
    assert torch.get_num_threads() == before
    torch.set_num_threads(threads)


def test_torch_gets_its_threads_back_from_a_training_that_fails(cartpole: str) -> None:
    before = torch.get_num_threads()

    with pytest.raises(
        MlflowException, match=r"PPO stopped at step .*: RuntimeError: in the middle"
    ):
        loop.train(
            cartpole,
            "ppo",
            timesteps=64,
            hyperparams={"n_steps": 64},
            callbacks=[_Failing()],
            torch_threads=before + 1,
        )

    assert torch.get_num_threads() == before


class _Failing(BaseCallback):
    def _on_step(self) -> bool:
        raise RuntimeError("in the middle")


class _Spy(BaseCallback):
    def __init__(self, seen: list[int]) -> None:
        super().__init__()
        self.seen = seen

    def _on_step(self) -> bool:
        self.seen.append(torch.get_num_threads())
        return True


@pytest.mark.parametrize(
    ("algo", "hyperparams", "says"),
    [
        ("sac", {}, "sac does not fit the action space"),
        ("dqn", {"nonsense": 1}, "dqn has no hyperparameter 'nonsense'"),
    ],
)
def test_what_does_not_fit_is_refused_before_learning(
    algo: str, hyperparams: dict[str, Any], says: str, cartpole: str
) -> None:
    with pytest.raises(MlflowException, match=says):
        loop.train(cartpole, algo, timesteps=100, hyperparams=hyperparams)
