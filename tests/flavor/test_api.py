from __future__ import annotations

import inspect
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium
import mlflow
import mlflow.xgboost
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import FlattenExtractor

import mlflow_sb3
from mlflow_sb3.algorithms import builder
from mlflow_sb3.envs import env_spec
from mlflow_sb3.flavor import onnx_export, parity_inputs, source_env
from mlflow_sb3.flavor.parity import check_parity
from mlflow_sb3.inference.onnx_policy import OnnxPolicy
from mlflow_sb3.registry import integrity, signing, versions
from tests import ROOT
from tests.conftest import Keys

AGENTS: list[tuple[type[BaseAlgorithm], str, dict[str, Any]]] = [
    (DQN, "CartPole-v1", {"learning_starts": 10}),
    (PPO, "CartPole-v1", {"n_steps": 64}),
    (A2C, "CartPole-v1", {}),
    (A2C, "Pendulum-v1", {"policy_kwargs": {"squash_output": False}}),
    (PPO, "Pendulum-v1", {"n_steps": 64, "use_sde": True}),
    (
        PPO,
        "MountainCarContinuous-v0",
        {"n_steps": 64, "policy_kwargs": {"activation_fn": torch.nn.ELU}},
    ),
    (SAC, "Pendulum-v1", {"learning_starts": 10}),
    (SAC, "Pendulum-v1", {"learning_starts": 10, "use_sde": True}),
    (TD3, "Pendulum-v1", {"learning_starts": 10}),
    (DDPG, "MountainCarContinuous-v0", {"learning_starts": 10}),
]
DEFAULT_AGENTS = (AGENTS[0], AGENTS[4])
"""Agents of the default test run."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            agent,
            id=f"{agent[0].__name__}-{agent[1]}-{'-'.join(agent[2])}",
            marks=() if agent in DEFAULT_AGENTS else pytest.mark.matrix,
        )
        for agent in AGENTS
    ],
)
def trained_and_loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[BaseAlgorithm, OnnxPolicy]:
    cls, env_id, arguments = request.param
    model = cls("MlpPolicy", env_id, seed=0, device="cpu", **arguments).learn(64)
    folder = tmp_path_factory.mktemp("agent") / "model"
    mlflow_sb3.save_model(model, folder)
    return model, OnnxPolicy.load(folder / "agent")


def sample_observations(model: BaseAlgorithm, count: int) -> np.ndarray[Any, Any]:
    model.observation_space.seed(7)
    return np.stack([model.observation_space.sample() for _ in range(count)])


@pytest.mark.parametrize("batch", [1, 7, 64, 256])
def test_actions_equal_those_of_sb3(
    trained_and_loaded: tuple[BaseAlgorithm, OnnxPolicy], batch: int
) -> None:
    model, policy = trained_and_loaded
    expected, _ = model.predict(sample_observations(model, batch), deterministic=True)

    actions, state = policy.predict(sample_observations(model, batch))

    assert state is None
    assert actions.dtype == model.action_space.dtype
    assert actions.shape == expected.shape
    if isinstance(model.action_space, gymnasium.spaces.Box):
        extent = model.action_space.high - model.action_space.low
        assert np.abs((actions - expected) / extent).max() <= 1e-5
    else:
        assert actions.tolist() == expected.tolist()


def test_a_single_observation_gives_a_single_action(
    trained_and_loaded: tuple[BaseAlgorithm, OnnxPolicy],
) -> None:
    model, policy = trained_and_loaded
    observation = sample_observations(model, 1)[0]

    action, _ = policy.predict(observation)

    assert action.shape == model.action_space.shape
    assert model.action_space.contains(action if action.shape else action.item())
    assert action.tolist() == pytest.approx(
        model.predict(observation, deterministic=True)[0].tolist(), abs=1e-4
    )


def test_agent_json_records_the_agreement_of_the_graph_with_sb3(
    trained_and_loaded: tuple[BaseAlgorithm, OnnxPolicy],
) -> None:
    info = trained_and_loaded[1].agent_info

    assert info is not None
    assert info.parity is not None
    assert info.parity.observations == 512
    assert info.parity.observations_from_episodes == 256
    assert info.parity.max_difference <= 1e-5


@pytest.mark.parametrize(
    "observation",
    [
        np.zeros((2, 4), dtype=np.float32),
        np.zeros((2, 4), dtype=np.float64),
        np.zeros((2, 4), dtype=np.int64),
        [[0, 0, 0, 0], [0.0, 0.0, 0.0, 0.0]],
        pd.DataFrame(np.zeros((2, 4))),
    ],
    ids=["float32", "float64", "int64", "lists", "DataFrame"],
)
def test_a_policy_accepts_arrays_lists_and_frames(observation: Any, saved: Path) -> None:
    actions, _ = mlflow_sb3.load_policy(str(saved)).predict(observation)

    assert actions.shape == (2,)
    assert actions[0] == actions[1]


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (
            np.zeros((1, 3)),
            r"observation has the shape \(1, 3\)\. Expected shape \(4\) or \(n, 4\), dtype float32",
        ),
        (np.zeros(3), r"observation has the shape \(3,\)"),
        (np.zeros((1, 1, 4)), r"observation has the shape \(1, 1, 4\)"),
        (0.0, r"observation has the shape \(\)"),
        ([["a", "b", "c", "d"]], r"observation has the dtype <U1\. Expected"),
        (np.array([[0, 0, None, 0]]), "observation has the dtype object"),
        ([[0.0, np.nan, 0.0, 0.0]], "observation contains NaN"),
        (
            [[0.0, 0.0, -np.inf, 0.0]],
            "observation contains NaN, infinity, or a number that float32",
        ),
        (np.array([[0.0, 0.0, 1e39, 0.0]]), "a number that float32 cannot hold"),
        (np.array([[0.0, 0.0, 1e308, 0.0]]), "a number that float32 cannot hold"),
    ],
)
def test_invalid_observations_are_refused_with_the_expected_shape(
    observation: Any, message: str, saved: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        mlflow_sb3.load_policy(str(saved)).predict(observation)


def test_pyfunc_returns_actions_that_the_environment_accepts(saved: Path) -> None:
    model, env = mlflow.pyfunc.load_model(str(saved)), gymnasium.make("CartPole-v1")
    env.reset(seed=0)

    for batch in (np.array([[0.0, 0.0, 0.0, 0.0]]), pd.DataFrame(np.zeros((1, 4)))):
        actions = model.predict(batch)
        assert isinstance(actions, np.ndarray)
        env.step(actions[0])
    assert isinstance(model.get_raw_model(), OnnxPolicy)


@pytest.mark.parametrize(
    "batch", [np.zeros((1, 3)), np.full((1, 4), np.nan), np.zeros((1, 4), dtype=np.float32)]
)
def test_pyfunc_refuses_invalid_observations(batch: Any, saved: Path) -> None:
    with pytest.raises(
        MlflowException, match=r"contains NaN|does not match expected|not match|incompatible"
    ):
        mlflow.pyfunc.load_model(str(saved)).predict(batch)


def test_large_finite_observations_are_accepted(saved: Path) -> None:
    actions, _ = mlflow_sb3.load_policy(str(saved)).predict(np.array([[0.0, 0.0, 3e38, -3e38]]))

    assert actions[0] in (0, 1)


def test_a_request_has_a_limit_of_observations(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = mlflow.pyfunc.load_model(str(saved))
    monkeypatch.setenv("MLFLOW_SB3_MAX_ROWS", "8")

    assert model.predict(np.zeros((8, 4))).shape == (8,)
    with pytest.raises(MlflowException, match="has 9 observations, but at most 8 are accepted"):
        model.predict(np.zeros((9, 4)))


def test_threads_can_share_a_policy(saved: Path) -> None:
    policy = mlflow_sb3.load_policy(str(saved))
    batch = np.random.default_rng(0).normal(size=(64, 4))
    expected = policy.predict(batch)[0].tolist()
    answers: list[list[int]] = []

    threads = [
        threading.Thread(
            target=lambda: answers.extend(policy.predict(batch)[0].tolist() for _ in range(50))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [expected] * 200


def test_a_model_has_the_documented_files(saved: Path) -> None:
    files = {
        path.relative_to(saved).as_posix()
        for path in saved.rglob("*")
        if path.is_file() and "mlflow_sb3" not in path.parts
    }

    assert files == {
        "MLmodel",
        "MODEL_CARD.md",
        "requirements.txt",
        "python_env.yaml",
        "conda.yaml",
        "input_example.json",
        "serving_input_example.json",
        "agent/policy.onnx",
        "agent/agent.json",
        "agent/agent.zip",
    }
    assert (saved / "code" / "mlflow_sb3" / "flavor" / "__init__.py").exists()
    assert set(Model.load(str(saved)).flavors) == {"stable_baselines3", "python_function"}


def test_a_model_requires_neither_torch_nor_sb3(saved: Path) -> None:
    names = [
        line.partition("==")[0] for line in (saved / "requirements.txt").read_text().splitlines()
    ]

    assert names == ["mlflow", "numpy", "onnxruntime"]
    assert mlflow_sb3.get_default_pip_requirements()[2] == f"onnxruntime=={onnxruntime.__version__}"


def test_the_signature_follows_from_the_spaces(saved: Path) -> None:
    signature = Model.load(str(saved)).signature

    assert signature.inputs == Schema([TensorSpec(np.dtype(np.float64), (-1, 4))])
    assert signature.outputs == Schema([TensorSpec(np.dtype(np.int64), (-1,))])


def test_save_model_uses_its_arguments(
    ppo: PPO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "helper.py").write_text("answer = 42\n")
    for name in ("uv.lock", "pyproject.toml"):
        (tmp_path / name).write_text("[project]\nname = 'elsewhere'\nversion = '1'\n")
    monkeypatch.chdir(tmp_path)
    inputs = Schema([TensorSpec(np.dtype(np.float32), (-1, 4))])

    mlflow_sb3.save_model(
        ppo,
        tmp_path / "model",
        code_paths=[str(tmp_path / "helper.py")],
        signature=ModelSignature(inputs),
        input_example=np.ones((1, 4), dtype=np.float32),
        extra_pip_requirements=["pandas"],
        metadata={"team": "red"},
    )

    model = Model.load(str(tmp_path / "model"))
    assert model.signature.inputs == inputs
    assert model.metadata == {"team": "red"}
    assert json.loads((tmp_path / "model" / "input_example.json").read_text()) == [
        [1.0, 1.0, 1.0, 1.0]
    ]
    assert (tmp_path / "model" / "code" / "helper.py").exists()
    assert "pandas" in (tmp_path / "model" / "requirements.txt").read_text().splitlines()
    assert not (tmp_path / "model" / "uv.lock").exists()
    assert mlflow_sb3.load_policy(str(tmp_path / "model")).predict(np.zeros(4))[0].shape == ()


def test_pip_requirements_replace_the_default(ppo: PPO, tmp_path: Path) -> None:
    mlflow_sb3.save_model(ppo, tmp_path / "model", pip_requirements=["mlflow", "onnxruntime"])

    assert (tmp_path / "model" / "requirements.txt").read_text().split() == [
        "mlflow",
        "onnxruntime",
    ]


def test_the_flavor_has_the_arguments_of_mlflows_flavors() -> None:
    only_xgboost = {"xgb_model", "model_format", "extra_files", "kwargs"}
    arguments_of_xgboost = [
        set(inspect.signature(function).parameters) - only_xgboost
        for function in (mlflow.xgboost.save_model, mlflow.xgboost.log_model)
    ]
    arguments = [
        set(inspect.signature(function).parameters)
        for function in (mlflow_sb3.save_model, mlflow_sb3.log_model)
    ]

    assert [
        theirs - ours for theirs, ours in zip(arguments_of_xgboost, arguments, strict=True)
    ] == [
        set(),
        set(),
    ]


@pytest.mark.usefixtures("store")
def test_log_model_uses_the_active_run_and_registers_a_version(ppo: PPO) -> None:
    with mlflow.start_run() as run:
        info = mlflow_sb3.log_model(
            ppo,
            name="agent",
            registered_model_name="mine",
            tags={"a": "b"},
            params={"p": 1},
            step=3,
        )

    logged = mlflow.get_logged_model(info.model_id)
    assert logged.source_run_id == run.info.run_id
    assert (logged.name, logged.params["p"], logged.tags["a"]) == ("agent", "1", "b")
    assert info.registered_model_version == 1
    assert mlflow.MlflowClient().get_model_version("mine", "1").tags["mlflow_sb3.digest"]


@pytest.mark.usefixtures("store")
def test_log_model_signs_the_version(ppo: PPO, keys: Keys) -> None:
    mlflow_sb3.log_model(
        ppo, name="agent", registered_model_name="mine", signing_key=str(keys.private)
    )

    version = versions.find_version("mine", number=1)
    assert signing.verify_digest(str(version.digest), str(version.signature), keys.public)
    model = mlflow_sb3.load_model("models:/mine/1", public_key=str(keys.public), device="cpu")
    assert model.num_timesteps == ppo.num_timesteps


@pytest.mark.parametrize(
    ("key", "name", "message"),
    [
        (
            "private",
            None,
            r"only a registered version can be signed\. Pass registered_model_name too",
        ),
        ("public", "mine", r"Private key '.*public\.pem' is a public key"),
    ],
)
@pytest.mark.usefixtures("store")
def test_nothing_is_logged_if_the_version_cannot_be_signed(
    key: str, name: str | None, message: str, ppo: PPO, keys: Keys
) -> None:
    with pytest.raises(MlflowException, match=message):
        mlflow_sb3.log_model(
            ppo, name="agent", registered_model_name=name, signing_key=getattr(keys, key)
        )

    assert mlflow.search_logged_models(output_format="list") == []
    assert mlflow.MlflowClient().search_registered_models() == []


def test_load_model_returns_an_algorithm_that_can_be_trained(
    ppo: PPO, saved: Path, tmp_path: Path
) -> None:
    loaded = mlflow_sb3.load_model(
        str(saved),
        dst_path=str(tmp_path),
        env=ppo.get_env(),
        device="cpu",
        allow_pickle=True,
    )

    batch = sample_observations(ppo, 64)
    assert (
        loaded.predict(batch, deterministic=True)[0].tolist()
        == ppo.predict(batch, deterministic=True)[0].tolist()
    )
    assert loaded.learn(64, reset_num_timesteps=False).num_timesteps == 128
    assert (tmp_path / "MLmodel").exists()


def test_without_unpickling_only_policies_can_be_loaded(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

    assert mlflow_sb3.load_policy(str(saved)).predict(np.zeros(4))[0].shape == ()
    assert len(mlflow.pyfunc.load_model(str(saved)).predict(np.zeros((1, 4)))) == 1
    with pytest.raises(
        MlflowException,
        match="would unpickle a file, but MLFLOW_ALLOW_PICKLE_DESERIALIZATION is false",
    ):
        mlflow_sb3.load_model(str(saved), allow_pickle=True)


@pytest.mark.parametrize("name", ["policy.onnx", "agent.zip"])
def test_a_damaged_file_of_a_saved_model_is_refused(name: str, ppo: PPO, tmp_path: Path) -> None:
    mlflow_sb3.save_model(ppo, tmp_path / "model")
    file = tmp_path / "model" / "agent" / name
    file.write_bytes(file.read_bytes() + b"\0")
    load: Callable[..., Any] = (
        mlflow_sb3.load_policy if name == "policy.onnx" else mlflow_sb3.load_model
    )

    with pytest.raises(MlflowException, match="has changed"):
        load(str(tmp_path / "model"), allow_pickle=True)


class Unexportable(FlattenExtractor):
    """Branches on the values of a tensor, which cannot be exported."""

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return observations if observations.sum() > 0 else -observations


@pytest.fixture(scope="module")
def unexportable() -> PPO:
    return PPO(
        "MlpPolicy",
        "CartPole-v1",
        policy_kwargs={"features_extractor_class": Unexportable},
        device="cpu",
        seed=0,
    )


@pytest.mark.usefixtures("store")
def test_nothing_is_logged_if_the_export_fails(unexportable: PPO) -> None:
    with (
        mlflow.start_run(),
        pytest.raises(MlflowException, match="cannot be exported to ONNX: Unexportable"),
    ):
        mlflow_sb3.log_model(unexportable, name="agent", registered_model_name="agent")

    assert mlflow.search_logged_models(output_format="list") == []
    assert mlflow.MlflowClient().search_registered_models() == []


@pytest.mark.usefixtures("store")
def test_native_inference_predicts_with_sb3_and_sets_a_tag(
    unexportable: PPO, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = mlflow_sb3.log_model(unexportable, name="agent", inference="native")

    batch = sample_observations(unexportable, 8)
    expected, _ = unexportable.predict(batch, deterministic=True)
    policy = mlflow_sb3.load_policy(info.model_uri, allow_pickle=True)
    assert policy.predict(batch)[0].tolist() == expected.tolist()
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    assert (
        mlflow.pyfunc.load_model(info.model_uri).predict(batch.astype(np.float64)).tolist()
        == expected.tolist()
    )
    assert mlflow.get_logged_model(info.model_id).tags["mlflow_sb3.inference"] == "native"
    with integrity.fetch_uri(info.model_uri) as folder:
        assert "stable-baselines3==" in (folder / "requirements.txt").read_text()
    with pytest.raises(ValueError, match=r"observation has the shape \(1, 3\)"):
        policy.predict(np.zeros((1, 3)))


def test_native_inference_supports_a_memory_optimized_buffer(tmp_path: Path) -> None:
    saving: dict[str, Any] = {
        "optimize_memory_usage": True,
        "replay_buffer_kwargs": {"handle_timeout_termination": False},
    }
    model = builder.build_algorithm(
        "dqn", env_spec.compose_spec("CartPole-v1"), saving | {"buffer_size": 100}, seed=0
    )

    mlflow_sb3.save_model(model, tmp_path / "model", inference="native")

    policy = mlflow_sb3.load_policy(str(tmp_path / "model"), allow_pickle=True)
    assert policy.predict(np.zeros(4))[0] in (0, 1)


def test_threads_can_share_a_native_policy(unexportable: PPO, tmp_path: Path) -> None:
    mlflow_sb3.save_model(unexportable, tmp_path / "model", inference="native")
    policy = mlflow_sb3.load_policy(str(tmp_path / "model"), allow_pickle=True)
    batches = [sample_observations(unexportable, size) * size for size in range(1, 9)] * 50
    expected = [policy.predict(batch)[0].tolist() for batch in batches]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda batch: policy.predict(batch)[0].tolist(), batches))

    assert answers == expected


def test_native_requirements_have_no_local_versions(unexportable: PPO, tmp_path: Path) -> None:
    mlflow_sb3.save_model(unexportable, tmp_path / "model", inference="native")

    requirements = (tmp_path / "model" / "requirements.txt").read_text()

    assert "torch==" in requirements
    assert "+" not in requirements


def test_native_inference_needs_unpickling(
    unexportable: PPO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow_sb3.save_model(unexportable, tmp_path / "model", inference="native")
    for load in (mlflow_sb3.load_policy, mlflow.pyfunc.load_model):
        with pytest.raises(MlflowException, match=r"which can run any code\. .*allow_pickle=True"):
            load(str(tmp_path / "model"))

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

    with pytest.raises(MlflowException, match="inference=native would unpickle a file"):
        mlflow_sb3.save_model(unexportable, tmp_path / "another", inference="native")
    with pytest.raises(MlflowException, match="MLFLOW_ALLOW_PICKLE_DESERIALIZATION is false"):
        mlflow_sb3.load_policy(str(tmp_path / "model"), allow_pickle=True)
    assert not (tmp_path / "another").exists()


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_a_graph_that_differs_from_sb3_is_refused(env_id: str) -> None:
    model, other = (PPO("MlpPolicy", env_id, seed=seed, device="cpu") for seed in (0, 1))
    policy = onnx_export.export_policy(model, source_env.find_source_env(model)).policy

    with pytest.raises(
        MlflowException,
        match=r"The exported graph differs from stable_baselines3 by .*Nothing was saved",
    ):
        check_parity(
            other,
            policy,
            source_env.find_source_env(other),
            parity_inputs.ParityInputs(sample_observations(other, 256), 0),
        )


def test_saving_does_not_change_the_algorithm(tmp_path: Path) -> None:
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=64, seed=0, device="cpu").learn(64)
    weights = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.policy.set_training_mode(True)
    states = (torch.get_rng_state(), str(np.random.get_state()))

    mlflow_sb3.save_model(model, tmp_path / "model")

    assert all(
        torch.equal(value, weights[name]) for name, value in model.policy.state_dict().items()
    )
    assert torch.equal(torch.get_rng_state(), states[0])
    assert str(np.random.get_state()) == states[1]
    assert torch.distributions.Distribution._validate_args


def test_a_model_without_environment_is_checked_on_sampled_observations(
    ppo: PPO, tmp_path: Path
) -> None:
    ppo.save(tmp_path / "agent.zip")

    mlflow_sb3.save_model(PPO.load(tmp_path / "agent.zip", device="cpu"), tmp_path / "model")

    policy = mlflow_sb3.load_policy(str(tmp_path / "model"))
    assert policy.environment is None
    assert policy.agent_info is not None
    assert policy.agent_info.parity is not None
    assert policy.agent_info.parity.observations_from_episodes == 0
    assert policy.agent_info.parity.observations == 256


WITHOUT_TRAIN_EXTRA = """
import sys
for name in ("torch", "stable_baselines3", "sb3_contrib", "onnx", "onnxscript"):
    sys.modules[name] = None
import numpy as np
import mlflow_sb3

assert mlflow_sb3.load_policy(sys.argv[1]).predict(np.zeros(4))[0].shape == ()
for function, arguments in ((mlflow_sb3.log_model, [None]), (mlflow_sb3.save_model, [None, "a"])):
    try:
        function(*arguments)
    except mlflow_sb3.flavor.api.MlflowException as error:
        print(error.message)
"""


def test_without_the_train_extra_logging_names_it_and_loading_works(saved: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_TRAIN_EXTRA, str(saved)]

    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    packages = "stable_baselines3, sb3_contrib, torch, onnx, onnxscript"
    assert completed.stdout.splitlines() == [
        f"{name} needs {packages}. Run: pip install 'mlflow-sb3[train]'"
        for name in ("log_model", "save_model")
    ]


def test_importing_the_package_imports_no_heavy_package() -> None:
    script = "import sys, mlflow_sb3; print(*sys.modules)"

    completed = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )

    imported = set(completed.stdout.split())
    assert imported.isdisjoint({"torch", "stable_baselines3", "gymnasium", "mlflow", "onnxruntime"})
