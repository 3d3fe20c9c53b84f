"""Record an episode as a video."""

from __future__ import annotations

from pathlib import Path

from gymnasium.wrappers import RecordVideo

from mlflow_sb3.envs import Env, env_spec, rollout
from mlflow_sb3.inference.policy_protocol import Policy


def record_episode(policy: Policy, spec_json: str, seed: int, folder: Path) -> Path:
    """Play one episode and record a video of it.

    Args:
        policy: Policy that chooses the actions.
        spec_json: ``EnvSpec`` JSON of an environment with the render mode ``rgb_array``.
        seed: Seed of the episode.
        folder: Folder for the video.

    Returns:
        Path of an MP4 file with H.264 video.
    """
    videos = folder / "videos"

    def make_recording_env() -> Env:
        env = env_spec.make_from_spec(spec_json, render_mode="rgb_array")
        return RecordVideo(env, str(videos), name_prefix="episode", disable_logger=True)

    rollout.play_episodes(policy, make_recording_env, [seed])
    return (videos / "episode-episode-0.mp4").rename(folder / "episode.mp4")
