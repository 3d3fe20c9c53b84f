from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mlflow.exceptions import MlflowException

from mlflow_sb3 import algorithm, environment, presets

CLASSIC = ("CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1")


def test_the_preset_of_dqn_on_cartpole() -> None:
    preset = presets.find("dqn", "CartPole-v1")

    assert preset.origin == "rl_zoo3/hyperparams/dqn.yml#CartPole-v1"
    assert preset.hyperparams == {
        "policy": "MlpPolicy",
        "learning_rate": 0.0023,
        "batch_size": 64,
        "buffer_size": 100000,
        "learning_starts": 1000,
        "gamma": 0.99,
        "target_update_interval": 10,
        "train_freq": 256,
        "gradient_steps": 128,
        "exploration_fraction": 0.16,
        "exploration_final_eps": 0.04,
        "policy_kwargs": {"net_arch": [256, 256]},
    }


def test_python_in_a_preset_is_read_and_not_run() -> None:
    kwargs = presets.find("sac", "MountainCarContinuous-v0").hyperparams["policy_kwargs"]

    assert kwargs == {"log_std_init": -3.67, "net_arch": [64, 64], "use_expln": True}


def test_an_environment_that_nobody_tuned_has_an_empty_preset() -> None:
    assert presets.find("dqn", "Untuned-v0") == presets.Preset("stable-baselines3 defaults", {})


def test_presets_can_be_left_alone() -> None:
    assert presets.find("dqn", "CartPole-v1", source="none").hyperparams == {}


def test_a_preset_that_needs_what_is_not_supported_yet_is_refused() -> None:
    with pytest.raises(
        MlflowException, match="preset of ppo for Acrobot-v1 uses normalize, which is not supported yet; train with preset=none"
    ):
        presets.find("ppo", "Acrobot-v1")


def refused(algo: str, env_id: str) -> str | None:
    """Why a preset cannot be used in this version, if it cannot."""
    try:
        presets.find(algo, env_id)
    except MlflowException as error:
        return error.message
    return None


def test_every_preset_of_our_algorithms_is_read_or_refused_with_the_way_out() -> None:
    spec = importlib.util.find_spec("rl_zoo3")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "hyperparams"

    reasons = [refused(algo, env_id) for algo in algorithm.ACTIONS for env_id in yaml.safe_load((folder / f"{algo}.yml").read_text())]

    assert len(reasons) > 100
    assert all("which is not supported yet; train with preset=none" in reason for reason in reasons if reason)


BUILDABLE = [
    (algo, env_id)
    for env_id in CLASSIC
    for algo, actions in algorithm.ACTIONS.items()
    if isinstance(environment.make(env_id).action_space, actions) and not refused(algo, env_id)
]


@pytest.mark.parametrize(("algo", "env_id"), BUILDABLE)
def test_presets_of_classic_control_build(algo: str, env_id: str) -> None:
    small = {} if algo in {"a2c", "ppo"} else {"buffer_size": 100}
    description = environment.describe(environment.make(env_id).spec)

    model = algorithm.build(algo, description, presets.find(algo, env_id).hyperparams | small, seed=0)

    assert type(model).__name__.lower() == algo


@pytest.mark.slow
def test_presets_do_not_import_rl_zoo3() -> None:
    code = "import sys; from mlflow_sb3 import presets; presets.find('dqn', 'CartPole-v1'); print({'rl_zoo3', 'torch'} & set(sys.modules))"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
