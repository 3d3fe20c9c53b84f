from __future__ import annotations

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_sb3.flavor.evaluation_run import evaluate_version
from mlflow_sb3.registry.model_version import Version


def test_an_environment_that_cannot_be_rendered_costs_only_the_video(
    levels: list[Version], caplog: pytest.LogCaptureFixture
) -> None:
    episodes = evaluate_version(
        levels[4], 2, seed=0, public_key=None, allow_pickle=False, has_video=True
    )

    run = mlflow.active_run()
    assert run is not None
    artifacts = {file.path for file in MlflowClient().list_artifacts(run.info.run_id, "evaluation")}
    assert len(episodes.returns) == 2
    assert artifacts == {"evaluation/episodes.json", "evaluation/returns.png"}
    assert "No video was recorded: " in caplog.text
    assert "MUJOCO_GL=egl" in caplog.text
