from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from mlflow_sb3.envs import entry_points, env_spec, spec_rollout, vec_env_factory
from mlflow_sb3.envs.env_spec import compose_spec
from tests.vec_environments import MAX_STEPS, Walks

MODULE = "tests.vec_environments"
WALKS = f"{MODULE}:make_walks"


class Always:
    """Policy that always takes one action, and counts the observations of each call."""

    has_action_masks = False

    def __init__(self, action: int) -> None:
        self.action = action
        self.sizes: list[int] = []

    def predict(
        self, observation: Any, state: Any = None, *_: Any, **__: Any
    ) -> tuple[NDArray[Any], Any]:
        self.sizes.append(len(observation))
        return np.full(len(observation), self.action), state


@pytest.fixture(autouse=True)
def _trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(entry_points.TRUSTED_MODULES, MODULE)


@pytest.fixture
def walks() -> str:
    return compose_spec(WALKS, kwargs={"failure": 0.0})


@pytest.mark.parametrize(
    ("env_id", "expected"),
    [
        (WALKS, True),
        ("CartPole-v1", False),
        ("tests.environments:Levels-v0", False),
        (f"{MODULE}:Walks", False),
        (f"{MODULE}:nothing", False),
        ("no_such_module:make", False),
    ],
)
def test_an_id_is_a_factory_if_it_names_a_function(env_id: str, *, expected: bool) -> None:
    assert vec_env_factory.is_factory(env_id) is expected


def test_the_spec_names_the_function_and_its_arguments(walks: str) -> None:
    spec = json.loads(walks)

    assert spec["id"] == WALKS
    assert spec["kwargs"] == {"factory": WALKS, "arguments": {"failure": 0.0}}
    assert vec_env_factory.is_vec_env(walks)
    assert not vec_env_factory.is_vec_env(compose_spec("CartPole-v1"))


def test_the_first_environment_plays_an_episode_like_any_gymnasium_environment(walks: str) -> None:
    with env_spec.make_from_spec(walks) as env:
        observation, _ = env.reset(seed=1)
        total, length, is_over = 0.0, 0, False
        while not is_over:
            position = observation[0]
            observation, reward, terminated, truncated, info = env.step(1)
            assert observation[0] == position + 1
            total, length = total + float(reward), length + 1
            is_over = terminated or truncated

    assert (terminated, truncated, info["is_success"]) == (True, False, True)
    assert total == -length
    assert observation[0] == 4


def test_a_time_limit_truncates_an_episode(walks: str) -> None:
    with env_spec.make_from_spec(walks) as env:
        env.reset()
        flags = [env.step(0)[2:4] for _ in range(MAX_STEPS)]

    assert flags == [(False, False)] * (MAX_STEPS - 1) + [(False, True)]


@pytest.mark.parametrize("n_episodes", [1, 7, 64, 150])
def test_all_environments_play_equally_many_episodes(n_episodes: int, walks: str) -> None:
    policy, ends = Always(1), []

    episodes = spec_rollout.play_episodes(
        policy, walks, range(5, 5 + n_episodes), on_episode=lambda: ends.append(1)
    )

    assert set(policy.sizes) == {min(n_episodes, 64)}
    assert episodes.seeds.tolist() == [5] * n_episodes  # the only seed is that of the simulator
    assert len(ends) == n_episodes
    # The start is -1, 0 or 1, so the goal at 4 is 3 to 5 steps away.
    assert set(episodes.lengths.tolist()) <= {3, 4, 5}
    assert episodes.returns.tolist() == (-episodes.lengths).tolist()
    assert episodes.success_rate == 1.0


def test_short_episodes_are_not_too_frequent(walks: str) -> None:
    episodes = spec_rollout.play_episodes(Always(1), walks, range(640))

    # If the first episodes to end counted, the mean would be near 3.8.
    assert episodes.lengths.mean() == pytest.approx(4.0, abs=0.1)


def test_the_order_of_the_episodes_does_not_depend_on_their_length(walks: str) -> None:
    episodes = spec_rollout.play_episodes(Always(1), walks, range(640))

    halves = episodes.lengths.reshape(64, 10)[:, :5], episodes.lengths.reshape(64, 10)[:, 5:]
    # In the order in which they end, the first half would have the short episodes.
    assert halves[0].mean() == pytest.approx(halves[1].mean(), abs=0.2)
    assert abs(np.corrcoef(np.arange(640), episodes.lengths)[0, 1]) < 0.15


def test_a_refused_vec_env_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Walks] = []
    monkeypatch.setattr(Walks, "close", lambda env: closed.append(env))  # noqa: PLW0108  # a method

    with pytest.raises(MlflowException, match="returned 2 environments for n_envs=1"):
        compose_spec(f"{MODULE}:make_one_env", kwargs={})

    assert len(closed) == 1


def test_the_first_seed_decides_the_episodes() -> None:
    walks = compose_spec(WALKS, kwargs={"failure": 0.5})

    def play(*seeds: int) -> tuple[float, ...]:
        return tuple(spec_rollout.play_episodes(Always(1), walks, seeds).returns)

    assert play(1, 2, 3, 4, 5, 6) == play(1, 3, 4, 5, 6, 7)
    assert play(1, 2, 3, 4, 5, 6) != play(2, 3, 4, 5, 6, 7)


def test_episodes_of_failures_are_no_successes() -> None:
    walks = compose_spec(WALKS, kwargs={"failure": 1.0})

    episodes = spec_rollout.play_episodes(Always(1), walks, range(3))

    assert episodes.lengths.tolist() == [MAX_STEPS] * 3
    assert episodes.success_rate == 0.0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("make_one_env", r"returned 2 environments for n_envs=1\. Return 1\.$"),
        ("make_nothing", r"returned a NoneType\. Return a VecEnv of SB3\.$"),
        ("make_normalized", r"returned a VecNormalize\. Remove it, and use the hyperparameter"),
        ("make_late_start", r"returned the space Discrete\(2, start=1\)\. SB3 needs"),
    ],
)
def test_a_function_with_a_wrong_result_is_refused(name: str, message: str) -> None:
    with pytest.raises(MlflowException, match=rf"^The function {MODULE}:{name} {message}"):
        compose_spec(f"{MODULE}:{name}")


def test_a_function_that_rejects_its_arguments_is_named() -> None:
    with pytest.raises(
        MlflowException, match=r"make_walks failed with n_envs=1, seed=0, \{'gaol': 3\}: .*'gaol'"
    ):
        compose_spec(WALKS, kwargs={"gaol": 3})


def test_wrappers_are_refused() -> None:
    with pytest.raises(MlflowException, match=r"cannot have the wrappers .*Apply them in the func"):
        compose_spec(WALKS, wrappers=["gymnasium.wrappers:FlattenObservation"])


def test_a_stored_function_is_called_only_if_the_user_trusts_it(
    walks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(entry_points.TRUSTED_MODULES, "")

    for call in (
        env_spec.make_from_spec,
        lambda spec: spec_rollout.play_episodes(Always(1), spec, [1]),
    ):
        with pytest.raises(
            MlflowException,
            match=r"make_walks is not called, because it is a function and could run any code\. "
            r"If you trust it, set MLFLOW_SB3_TRUSTED_MODULES=tests\.vec_environments\.",
        ):
            call(walks)


@pytest.mark.parametrize("is_json", [False, True], ids=["id", "JSON"])
def test_a_function_that_the_user_names_is_trusted(
    walks: str, monkeypatch: pytest.MonkeyPatch, *, is_json: bool
) -> None:
    monkeypatch.setenv(entry_points.TRUSTED_MODULES, "")

    entry_points.trust_options(walks if is_json else WALKS)

    env_spec.make_from_spec(walks).close()


@pytest.mark.parametrize(
    "change",
    [
        {"kwargs": {}},
        {"kwargs": {"factory": WALKS, "arguments": {}, "more": 1}},
        {"kwargs": {"factory": 7, "arguments": {}}},
        {"additional_wrappers": [{"name": "W", "entry_point": "a:W", "kwargs": {}}]},
        {"max_episode_steps": 2},
    ],
)
def test_an_edited_spec_is_refused(walks: str, change: dict[str, Any]) -> None:
    edited = json.dumps(json.loads(walks) | change)

    with pytest.raises(MlflowException, match="describes no environments of a function"):
        spec_rollout.play_episodes(Always(1), edited, [1])


@pytest.mark.parametrize("text", ["[]", "{}", "1", "no JSON"])
def test_a_text_that_is_no_spec_is_no_factory(text: str) -> None:
    assert not vec_env_factory.is_vec_env(text)

    with pytest.raises(MlflowException, match="is no EnvSpec JSON"):
        spec_rollout.play_episodes(Always(1), text, [1])


def test_a_system_function_is_not_called() -> None:
    spec = vec_env_factory.build_spec("os:system", {"command": "true"})

    with pytest.raises(MlflowException, match="os:system is not"):
        env_spec.make_from_spec(spec.to_json())
