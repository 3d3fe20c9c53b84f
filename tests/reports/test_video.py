from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from mlflow_sb3.inference.onnx_policy import OnnxPolicy
from mlflow_sb3.reports import video


def test_a_video_of_an_episode_is_recorded(saved: Path, cartpole: str, tmp_path: Path) -> None:
    path = video.record_episode(OnnxPolicy.load(saved / "agent"), cartpole, 0, tmp_path)

    assert path == tmp_path / "episode.mp4"
    assert path.read_bytes()[4:8] == b"ftyp"
    assert path.stat().st_size > 1000


def test_an_invalid_environment_is_rejected(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(MlflowException, match="is no EnvSpec JSON"):
        video.record_episode(OnnxPolicy.load(saved / "agent"), "{}", 0, tmp_path)
