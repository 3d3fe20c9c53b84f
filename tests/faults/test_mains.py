"""Several `main`s at once for one registered model, on an `mlflow server` with PostgreSQL."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_sb3 import contender, environment, match, registry
from mlflow_sb3.comparison import Gate
from tests.project.conftest import ROOT, Place

pytestmark = pytest.mark.slow

NAME = "mains"
MAINS = int(os.environ.get("MAINS", "2"))
"""How many; eight take ten minutes on a slow machine."""
TIMESTEPS = (300, 20_000, 2_000, 1_000, 8_000, 12_000, 500, 4_000)
"""That they train for."""


def test_mains_at_once_make_one_champion_which_none_of_them_beats(mlflow_server: str, tmp_path: Path) -> None:
    experiment_id = mlflow.create_experiment("mains")
    place = Place(tmp_path, {"MLFLOW_TRACKING_URI": mlflow_server, "XDG_STATE_HOME": str(tmp_path)})
    calls = [["-P", f"timesteps={timesteps}", "-P", f"seed={seed}"] for seed, timesteps in enumerate(TIMESTEPS[:MAINS])]
    command = ["mlflow", "run", str(ROOT), "-e", "main", "--env-manager", "local", "--experiment-id", experiment_id]

    started = [
        subprocess.Popen(
            [*command, "-P", "algo=ppo", "-P", f"model_name={NAME}", "-P", "episodes=10", *call], cwd=tmp_path, env=place.environment()
        )
        for call in calls
    ]

    assert [process.wait() for process in started] == [0] * MAINS
    runs = MlflowClient().search_runs([experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(runs) == 5 * MAINS
    versions = [registry.find(NAME, number=number) for number in range(1, MAINS + 1)]
    assert {version.run_id for version in versions} <= {run.info.run_id for run in runs}
    champion = registry.champion(NAME, "champion")
    assert champion in versions
    seeds = environment.seeds(0, "gate", 400)
    for version in versions:
        mean = contender.load(version).play(seeds).returns.mean()
        print(f"{version}: mean return {mean:.1f}{', the champion' if version == champion else ''}")  # noqa: T201 pytest -s shows it
    others = [version for version in versions if version != champion]
    verdicts = [match.arrange(other, champion, Gate()).play(Gate()).verdict for other in others]
    assert "promote" not in verdicts
