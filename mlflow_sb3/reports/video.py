"""Record episodes as videos."""

from __future__ import annotations

from pathlib import Path

from gymnasium.wrappers import RecordVideo

from mlflow_sb3.envs import env_spec, rollout
from mlflow_sb3.envs.wrapper_config import Env
from mlflow_sb3.inference.policy_protocol import Policy


def record_episode(policy: Policy, description: str, seed: int, folder: Path) -> Path:
    """Play one episode and film it.

    Args:
        policy: Picks the actions.
        description: The environment, as ``EnvSpec`` JSON; must render ``rgb_array``.
        seed: Of the episode.
        folder: To write into.

    Returns:
        The file, H.264 in mp4.
    """

    def filmed() -> Env:
        env = env_spec.make_from_spec(description, render_mode="rgb_array")
        return RecordVideo(env, str(folder / "films"), name_prefix="episode", disable_logger=True)

    rollout.play_episodes(policy, filmed, [seed])
    return (folder / "films" / "episode-episode-0.mp4").rename(folder / "episode.mp4")
