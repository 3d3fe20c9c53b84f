"""Tests of the project with an `mlflow server`, which transfers artifacts over HTTP."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy.server.process import find_free_port
from mlflow_sb3.registry import model_version
from tests.project.conftest import Place, run_server

pytestmark = pytest.mark.process


def test_main_creates_a_champion_on_a_server(place: Place) -> None:
    uri = f"http://127.0.0.1:{find_free_port()}"
    served = place.folder / "served"
    command = [
        "mlflow",
        "server",
        "--backend-store-uri",
        place.store,
        "--artifacts-destination",
        str(served),
        "--workers",
        "1",
    ]
    remote = replace(place, variables={"MLFLOW_TRACKING_URI": uri})

    with run_server(place, [*command, "--port", uri.rpartition(":")[2]], f"{uri}/health"):
        main = remote.mlflow_run("main", "timesteps=300", "episodes=3")
        promoted = remote.mlflow_run(
            "promote",
            "version=1",
            "rule=force",
            "reason=300 steps may not be enough to beat random actions",
        )
        evaluated = remote.mlflow_run("evaluate", "alias=champion", "episodes=3", "video=true")

    assert main.returncode == 0, main.stderr
    assert promoted.returncode == 0, promoted.stderr
    assert evaluated.returncode == 0, evaluated.stderr
    champion = place.client.get_model_version_by_alias("cartpole-v1-dqn", "champion")
    assert champion.tags[model_version.DIGEST_TAG]
    assert [run.info.status for run in place.runs()] == ["FINISHED"] * 7
    assert len(list(served.rglob("episode.mp4"))) == 1
    assert not (place.folder / "mlruns").exists()
