from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from mlflow_sb3.envs import env_spec
from mlflow_sb3.exchange.agent_environment import describe_environment
from mlflow_sb3.exchange.agent_folder import AgentFolder

SCALE = "tests.environments.ScaleObservation"


def find(env_id: str = "CartPole-v1", **files: Any) -> AgentFolder:
    return AgentFolder(Path("agent.zip"), "ppo", env_id, **files)


def test_wrappers_and_frame_stack_come_from_the_files_and_the_caller() -> None:
    config = {"env_wrapper": [{SCALE: {"factor": 2.0}}], "frame_stack": 3, "n_envs": 8}

    described = describe_environment(
        find(config=config), wrappers=[{"gymnasium.wrappers:TimeLimit": {"max_episode_steps": 9}}]
    )

    assert env_spec.list_wrappers(described) == [
        {"tests.environments:ScaleObservation": {"factor": 2.0}},
        {"gymnasium.wrappers:TimeLimit": {"max_episode_steps": 9}},
        {"mlflow_sb3.wrappers:FrameStack": {"n_stack": 3}},
    ]


@pytest.mark.parametrize(
    ("args", "config", "expected"),
    [
        ({"env_kwargs": None}, {}, 10.0),
        ({"env_kwargs": {"g": 1.0}}, {}, 1.0),
        ({"env_kwargs": {"g": 1.0}}, {"env_kwargs": {"g": 2.0}}, 1.0),
        ({}, {"env_kwargs": {"g": 2.0}}, 2.0),
        ({}, {"env_kwargs": "dict(g=2.5)"}, 2.5),
    ],
)
def test_arguments_come_from_the_files_as_in_rl_zoo3(
    args: dict[str, Any], config: dict[str, Any], expected: float
) -> None:
    found = find("Pendulum-v1", args=args, config=config)

    with env_spec.make_from_spec(describe_environment(found)) as env:
        assert env.unwrapped.g == expected  # type: ignore[attr-defined]


def test_arguments_of_the_caller_override_those_of_the_files() -> None:
    found = find("Pendulum-v1", args={"env_kwargs": {"g": 1.0, "max_episode_steps": 7}})

    described = json.loads(describe_environment(found, env_kwargs={"g": 3.0}))

    assert (described["kwargs"], described["max_episode_steps"]) == ({"g": 3.0}, 7)


def test_the_packages_of_the_files_are_imported(tmp_path: Path) -> None:
    found = find("Levels-v0", args={"gym_packages": ["tests.environments"]})

    assert json.loads(describe_environment(found))["id"] == "Levels-v0"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"args": {"gym_packages": ["antigravity"]}}, "antigravity is not imported"),
        ({"env_id": "antigravity:Fly-v0"}, "antigravity:Fly-v0 is not imported"),
        ({"config": {"env_wrapper": "antigravity.Fly"}}, "antigravity:Fly is not imported"),
        ({"config": {"env_wrapper": "subprocess.Popen"}}, "subprocess:Popen is not imported"),
        ({"config": {"vec_env_wrapper": "a.B"}}, "trained with vec_env_wrapper='a.B'"),
        ({"config": {"frame_stack": 4, "normalize": True}}, "frame_stack=4 and normalize=True"),
        (
            {"config": {"frame_stack": 4, "normalize": "dict(norm_reward=False)"}},
            "normalizes each frame",
        ),
    ],
)
def test_what_the_files_must_not_name_is_refused(files: dict[str, Any], message: str) -> None:
    with pytest.raises(MlflowException, match=message):
        describe_environment(find(**files))


def test_rewards_may_be_normalized_with_stacked_frames() -> None:
    config = {"frame_stack": 4, "normalize": "dict(norm_obs=False, norm_reward=True)"}

    assert len(env_spec.list_wrappers(describe_environment(find(config=config)))) == 1
