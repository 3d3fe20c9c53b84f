from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import yaml
from gymnasium.envs.registration import EnvSpec
from mlflow.exceptions import MlflowException
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

from mlflow_sb3.algorithms import algorithms, builder, hyperparam_check, zoo_presets
from mlflow_sb3.algorithms.zoo_presets import Preset
from mlflow_sb3.envs import env_spec

RL_ZOO3 = importlib.util.find_spec("rl_zoo3")
assert RL_ZOO3 is not None
HYPERPARAMS_FOLDER = Path(str(RL_ZOO3.origin)).parent / "hyperparams"
SECTIONS = {
    (path.stem, section): tuned
    for path in sorted(HYPERPARAMS_FOLDER.glob("*.yml"))
    if path.stem in algorithms.ALGORITHMS
    for section, tuned in yaml.safe_load(path.read_text()).items()
}
INSTALLED_ENVS = {
    env_id
    for env_id, spec in gymnasium.registry.items()
    if str(spec.entry_point).split(".")[2:3] in (["classic_control"], ["box2d"], ["toy_text"])
}
MISSING_WRAPPERS = {
    (
        "sac",
        "CarRacing-v3",
    ): "ae.wrapper:AutoencoderWrapper cannot be imported: No module named 'ae'"
}
"""Presets with a wrapper of an unpublished package, and the error message."""
MASK_VELOCITY = "rl_zoo3.wrappers:MaskVelocityWrapper"


def build(algo: str, env_id: str, preset: Preset) -> Any:
    """Build the algorithm of a preset, with a small replay buffer."""
    small = (
        {"buffer_size": 100}
        if issubclass(algorithms.get_algorithm_class(algo), OffPolicyAlgorithm)
        else {}
    )
    description = env_spec.compose_spec(env_id, wrappers=preset.add_wrappers([]))
    return builder.build_algorithm(algo, description, preset.hyperparams | small, seed=0)


def test_the_preset_of_dqn_on_cartpole() -> None:
    preset = zoo_presets.find_preset("dqn", "CartPole-v1")

    assert preset.origin == "rl_zoo3/hyperparams/dqn.yml#CartPole-v1"
    assert preset.timesteps == 50_000
    assert preset.add_wrappers([]) == []
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


@pytest.mark.parametrize(
    ("algo", "env_id", "key", "value"),
    [
        (
            "sac",
            "MountainCarContinuous-v0",
            "policy_kwargs",
            {"log_std_init": -3.67, "net_arch": [64, 64], "use_expln": True},
        ),
        ("a2c", "Pendulum-v1", "normalize", True),
        ("ars", "Pendulum-v1", "normalize", {"norm_obs": True, "norm_reward": False}),
        ("ppo", "CarRacing-v3", "normalize", {"norm_obs": False, "norm_reward": True}),
        ("ppo_lstm", "CarRacing-v3", "learning_rate", "lin_1e-4"),
        (
            "tqc",
            "parking-v0",
            "replay_buffer_kwargs",
            {"goal_selection_strategy": "episode", "n_sampled_goal": 4},
        ),
        ("td3", "Ant-v4", "noise_type", "normal"),
    ],
)
def test_python_values_become_json_values(algo: str, env_id: str, key: str, value: Any) -> None:
    assert zoo_presets.find_preset(algo, env_id).hyperparams[key] == value


def test_classes_become_their_names() -> None:
    assert (
        zoo_presets.find_preset("ppo", "HalfCheetahBulletEnv-v0").hyperparams["policy_kwargs"][
            "activation_fn"
        ]
        == "nn.ReLU"
    )


def test_wrappers_of_the_caller_are_between_those_of_the_preset_and_the_frame_stack() -> None:
    preset = zoo_presets.find_preset("ppo", "CarRacing-v3")

    wrappers = preset.add_wrappers(["mine:Wrapper"])

    assert [
        next(iter(wrapper)) if isinstance(wrapper, dict) else wrapper for wrapper in wrappers
    ] == [
        "rl_zoo3.wrappers.FrameSkip",
        "rl_zoo3.wrappers.YAMLCompatResizeObservation",
        "gymnasium.wrappers.transform_observation.GrayscaleObservation",
        "mine:Wrapper",
        "mlflow_sb3.wrappers:FrameStack",
    ]
    assert not {"env_wrapper", "frame_stack", "n_timesteps"} & set(preset.hyperparams)


def test_a_wrapper_that_gymnasium_moved_has_its_new_path() -> None:
    moved = zoo_presets.find_preset("sac", "donkey-generated-track-v0").add_wrappers([])[0]

    assert moved == {"gymnasium.wrappers:TimeLimit": {"max_episode_steps": 500}}
    env_spec.compose_spec("CartPole-v1", wrappers=[moved])


def test_override_replaces_single_keys() -> None:
    preset = zoo_presets.find_preset("ppo", "CarRacing-v3").override(
        {
            "env_wrapper": "mine.Wrapper",
            "frame_stack": None,
            "n_timesteps": "1e3",
            "gamma": 0.5,
            "policy_kwargs": "dict(net_arch=[8])",
        }
    )

    assert preset.add_wrappers([]) == ["mine.Wrapper"]
    assert preset.timesteps == 1000
    assert preset.hyperparams["gamma"] == 0.5
    assert preset.hyperparams["policy_kwargs"] == {"net_arch": [8]}
    assert preset.hyperparams["n_steps"] == 512
    assert preset.origin == "rl_zoo3/hyperparams/ppo.yml#CarRacing-v3"


@pytest.mark.parametrize(
    ("hyperparams", "message"),
    [
        (
            {"policy_kwargs": "dict(net_arch=open('x'))"},
            r"policy_kwargs is .* cannot be parsed: .*\. Write it as JSON",
        ),
        ({"policy_kwargs": "dict(net_arch="}, "policy_kwargs is .* cannot be parsed"),
        ({"normalize": "{**{}}"}, "normalize is .* cannot be parsed"),
        ({"n_timesteps": "many"}, r"n_timesteps is 'many'\. Use a number"),
    ],
)
def test_a_value_that_cannot_be_parsed_is_rejected(
    hyperparams: dict[str, Any], message: str
) -> None:
    with pytest.raises(MlflowException, match=message):
        Preset("mine").override(hyperparams)


def test_an_environment_without_a_section_has_the_default_section() -> None:
    assert zoo_presets.find_preset("dqn", "Untuned-v0") == Preset(
        "rl_zoo3/hyperparams/dqn.yml#default"
    )
    assert zoo_presets.find_preset("ars", "Untuned-v0").hyperparams == {
        "policy": "LinearPolicy",
        "n_delta": 2,
        "n_top": 2,
        "delta_std": 0.02,
    }


def test_an_algorithm_without_a_file_has_an_empty_preset() -> None:
    assert zoo_presets.find_preset("ppo_mask", "CartPole-v1") == Preset(
        "stable-baselines3 defaults"
    )


def test_an_atari_game_has_the_atari_section(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        gymnasium.registry, "ALE/Pong-v5", EnvSpec("ALE/Pong-v5", "ale_py.env:AtariEnv")
    )

    preset = zoo_presets.find_preset("dqn", "ale_py:ALE/Pong-v5")

    assert preset.origin == "rl_zoo3/hyperparams/dqn.yml#atari"
    assert preset.timesteps == 10_000_000
    assert preset.add_wrappers([])[-1] == {"mlflow_sb3.wrappers:FrameStack": {"n_stack": 4}}


def test_a_module_prefix_of_the_id_is_ignored() -> None:
    assert zoo_presets.find_preset("dqn", "some.module:CartPole-v1") == zoo_presets.find_preset(
        "dqn", "CartPole-v1"
    )


def test_source_none_gives_an_empty_preset() -> None:
    assert zoo_presets.find_preset("dqn", "CartPole-v1", source="none") == Preset(
        "stable-baselines3 defaults"
    )


def test_rl_zoo3_has_276_sections_of_supported_algorithms() -> None:
    assert len(SECTIONS) == 276
    assert sum(env_id in INSTALLED_ENVS for _, env_id in SECTIONS) > 60


@pytest.mark.parametrize(("algo", "section"), SECTIONS)
def test_every_preset_has_only_hyperparameters_of_its_algorithm(algo: str, section: str) -> None:
    preset = Preset("rl_zoo3").override(SECTIONS[algo, section])

    assert json.loads(json.dumps(preset.hyperparams)) == preset.hyperparams
    if section != "default":  # its MlpPolicy is not a policy of every algorithm
        hyperparam_check.check_hyperparams(algo, preset.hyperparams)
        assert preset.timesteps


@pytest.mark.filterwarnings(
    "ignore:You have specified a mini-batch size"
)  # the batch size of ppo on MountainCarContinuous-v0
@pytest.mark.parametrize(("algo", "env_id"), [key for key in SECTIONS if key[1] in INSTALLED_ENVS])
def test_every_preset_of_an_installed_environment_can_be_built(algo: str, env_id: str) -> None:
    preset = zoo_presets.find_preset(algo, env_id)

    if (algo, env_id) in MISSING_WRAPPERS:
        with pytest.raises(MlflowException, match=MISSING_WRAPPERS[algo, env_id]):
            build(algo, env_id, preset)
    else:
        model = build(algo, env_id, preset)
        assert type(model) is algorithms.get_algorithm_class(algo)
        assert isinstance(model.get_vec_normalize_env(), VecNormalize) == bool(
            preset.hyperparams.get("normalize")
        )


@pytest.mark.parametrize("env_id", ["CliffWalking-v1", "FrozenLake-v1", "Taxi-v4"])
def test_toy_text_environments_without_a_section_can_be_built(env_id: str) -> None:
    assert type(
        build("dqn", env_id, zoo_presets.find_preset("dqn", env_id))
    ) is algorithms.get_algorithm_class("dqn")


def test_blackjack_can_be_built_with_flattened_observations() -> None:
    preset = zoo_presets.find_preset("a2c", "Blackjack-v1").override(
        {"env_wrapper": "gymnasium.wrappers.FlattenObservation"}
    )

    assert type(build("a2c", "Blackjack-v1", preset)) is algorithms.get_algorithm_class("a2c")


def test_a_recurrent_policy_learns_in_cartpole_without_velocities() -> None:
    description = env_spec.compose_spec("CartPole-v1", wrappers=[MASK_VELOCITY])

    builder.build_algorithm(
        "ppo_lstm", description, {"n_steps": 16, "batch_size": 16, "n_epochs": 1}, seed=0
    ).learn(16)

    with env_spec.make_from_spec(description) as env:
        assert env.reset(seed=0)[0][[1, 3]].tolist() == [0, 0]


@pytest.mark.train
def test_find_preset_imports_neither_rl_zoo3_nor_torch() -> None:
    code = (
        "import sys; from mlflow_sb3.algorithms.zoo_presets import find_preset; "
        "find_preset('dqn', 'CartPole-v1'); "
        "print({'rl_zoo3', 'torch'} & set(sys.modules))"
    )

    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "set()\n"
    )


@pytest.mark.parametrize("timesteps", [-3, 0, "1e400", "many"])
def test_an_invalid_number_of_timesteps_is_rejected(timesteps: object) -> None:
    with pytest.raises(MlflowException, match="Use a number of environment steps, at least 1"):
        zoo_presets.find_preset("dqn", "CartPole-v1").override({"n_timesteps": timesteps})
