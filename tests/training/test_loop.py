from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from mlflow.exceptions import MlflowException
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback

from mlflow_sb3.algorithms import builder, zoo_presets
from mlflow_sb3.envs import seeds
from mlflow_sb3.training import loop
from mlflow_sb3.training.checkpoint import Checkpoint
from mlflow_sb3.training.checkpoint_selection import EvaluationSettings, Selection
from mlflow_sb3.training.loop import TrainingResult

HYPERPARAMS = zoo_presets.find_preset("dqn", "CartPole-v1").hyperparams | {
    "learning_starts": 100,
    "train_freq": 64,
    "gradient_steps": 16,
}


@pytest.fixture(scope="module")
def result(cartpole: str) -> TrainingResult:
    return loop.train(cartpole, "dqn", timesteps=640, seed=3, hyperparams=HYPERPARAMS)


def load_weights(archive: bytes) -> dict[str, torch.Tensor]:
    return dict(DQN.load(io.BytesIO(archive)).policy.state_dict())


def are_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def get_last(result: TrainingResult) -> Checkpoint:
    return max(result.checkpoints, key=lambda checkpoint: checkpoint.step)


def test_training_equals_plain_sb3_with_fused_adam(result: TrainingResult, cartpole: str) -> None:
    fused = HYPERPARAMS | {
        "policy_kwargs": HYPERPARAMS["policy_kwargs"] | {"optimizer_kwargs": {"fused": True}}
    }
    (seed,) = seeds.generate_episode_seeds(3, "learning", 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    plain = builder.build_algorithm("dqn", cartpole, fused, seed=seed).learn(640)
    torch.set_num_threads(threads)

    assert are_equal(load_weights(get_last(result).archive), dict(plain.policy.state_dict()))


@pytest.mark.parametrize("optimizer_kwargs", [{"fused": False}, {"foreach": True}])
def test_hyperparameters_decide_the_implementation_of_adam(
    optimizer_kwargs: dict[str, bool], cartpole: str
) -> None:
    hyperparams = {"n_steps": 64, "policy_kwargs": {"optimizer_kwargs": optimizer_kwargs}}

    default = loop.train(cartpole, "ppo", timesteps=64, hyperparams={"n_steps": 64})
    configured = loop.train(cartpole, "ppo", timesteps=64, hyperparams=hyperparams)

    assert default.model.policy.optimizer.param_groups[0]["fused"]
    assert not configured.model.policy.optimizer.param_groups[0]["fused"]


@pytest.mark.parametrize(("selection", "checkpoints"), [("best", 3), ("none", 1)])
def test_the_evaluation_of_checkpoints_can_be_turned_down(
    selection: Selection, checkpoints: int, result: TrainingResult, cartpole: str
) -> None:
    evaluation = EvaluationSettings(freq=200, episodes=2, selection=selection)

    cheap = loop.train(
        cartpole, "dqn", timesteps=640, seed=3, hyperparams=HYPERPARAMS, evaluation=evaluation
    )

    assert len(cheap.checkpoints) == checkpoints
    assert len(cheap.best.returns) == 2
    assert cheap.last_digest == result.last_digest
    if selection == "none":
        assert cheap.best_digest == cheap.last_digest


def test_the_same_seed_selects_the_same_weights(result: TrainingResult, cartpole: str) -> None:
    again = loop.train(cartpole, "dqn", timesteps=640, seed=3, hyperparams=HYPERPARAMS)

    assert again.best.step == result.best.step
    assert are_equal(load_weights(again.best.archive), load_weights(result.best.archive))
    assert again.best_digest == result.best_digest


def test_the_model_has_the_weights_of_the_best_checkpoint(result: TrainingResult) -> None:
    assert are_equal(load_weights(result.best.archive), dict(result.model.policy.state_dict()))


def test_the_best_and_the_last_checkpoint_enter_the_selection(result: TrainingResult) -> None:
    finalists = [checkpoint for checkpoint in result.checkpoints if len(checkpoint.returns) == 270]

    assert len(result.checkpoints) == 8
    assert get_last(result).step == 640
    assert result.best.score == max(checkpoint.score for checkpoint in finalists)


def test_the_table_lists_the_checkpoints_by_step(result: TrainingResult) -> None:
    table = result.to_table()

    assert table["step"] == sorted(table["step"])
    assert table["kept"].count(True) == 1
    assert table["step"][table["kept"].index(True)] == result.best.step
    assert {len(column) for column in table.values()} == {8}


@pytest.mark.parametrize(("during", "before"), [(1, 2), (2, 1)])
def test_torch_threads_are_set_during_training_only(
    during: int, before: int, cartpole: str
) -> None:
    counts: list[int] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(before)

    loop.train(
        cartpole,
        "ppo",
        timesteps=64,
        hyperparams={"n_steps": 64},
        callbacks=[ThreadRecorder(counts)],
        torch_threads=during,
    )

    assert set(counts) == {during}
    assert torch.get_num_threads() == before
    torch.set_num_threads(threads)


def test_torch_threads_are_restored_after_a_failure(cartpole: str) -> None:
    before = torch.get_num_threads()

    with pytest.raises(
        MlflowException, match=r"PPO failed at step .*: RuntimeError: in the middle\. Check"
    ):
        loop.train(
            cartpole,
            "ppo",
            timesteps=64,
            hyperparams={"n_steps": 64},
            callbacks=[FailingCallback()],
            torch_threads=before + 1,
        )

    assert torch.get_num_threads() == before


class FailingCallback(BaseCallback):
    def _on_step(self) -> bool:
        raise RuntimeError("in the middle")


class ThreadRecorder(BaseCallback):
    """Callback that records the number of PyTorch threads in each step."""

    def __init__(self, counts: list[int]) -> None:
        super().__init__()
        self.counts = counts

    def _on_step(self) -> bool:
        self.counts.append(torch.get_num_threads())
        return True


@pytest.mark.parametrize(
    ("algo", "hyperparams", "message"),
    [
        ("sac", {}, "sac .* action space"),
        ("dqn", {"nonsense": 1}, "dqn has no hyperparameter 'nonsense'"),
    ],
)
def test_settings_that_do_not_fit_are_rejected_before_learning(
    algo: str, hyperparams: dict[str, Any], message: str, cartpole: str
) -> None:
    with pytest.raises(MlflowException, match=message):
        loop.train(cartpole, algo, timesteps=100, hyperparams=hyperparams)
