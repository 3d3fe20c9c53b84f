"""Several `main`s at once for one registered model, on an `mlflow server` with PostgreSQL."""

from __future__ import annotations

import os
import subprocess
from itertools import pairwise
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from mlflow_sb3.envs.seeds import generate_episode_seeds
from mlflow_sb3.flavor import registered_agent
from mlflow_sb3.promotion import matchup
from mlflow_sb3.promotion.gate import Gate
from mlflow_sb3.registry import alias_history
from mlflow_sb3.registry.model_version import Version
from mlflow_sb3.registry.versions import find_champion, find_version
from tests import ROOT
from tests.project.conftest import Place

pytestmark = pytest.mark.postgres

NAME = "mains"
MAINS = int(os.environ.get("MAINS", "3"))
"""How many; eight take ten minutes on a slow machine."""
TIMESTEPS = (300, 20_000, 2_000, 1_000, 8_000, 12_000, 500, 4_000)
"""That they train for."""


def test_mains_at_once_make_one_champion_which_none_of_them_beats(
    mlflow_server: str, tmp_path: Path
) -> None:
    experiment_id = mlflow.create_experiment("mains")
    place = Place(tmp_path, {"MLFLOW_TRACKING_URI": mlflow_server, "XDG_STATE_HOME": str(tmp_path)})
    calls = [
        ["-P", f"timesteps={timesteps}", "-P", f"seed={seed}"]
        for seed, timesteps in enumerate(TIMESTEPS[:MAINS])
    ]
    command = [
        "mlflow",
        "run",
        str(ROOT),
        "-e",
        "main",
        "--env-manager",
        "local",
        "--experiment-id",
        experiment_id,
    ]

    started = [
        subprocess.Popen(
            [*command, "-P", "algo=ppo", "-P", f"model_name={NAME}", "-P", "episodes=10", *call],
            cwd=tmp_path,
            env=place.environment(),
        )
        for call in calls
    ]

    assert [process.wait() for process in started] == [0] * MAINS
    runs = MlflowClient().search_runs([experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(runs) == 5 * MAINS
    found = MlflowClient().search_model_versions(f"name = '{NAME}'")
    assert sorted(int(version.version) for version in found) == list(range(1, MAINS + 1))
    versions = [find_version(NAME, number=number) for number in range(1, MAINS + 1)]
    assert {version.run_id for version in versions} <= {run.info.run_id for run in runs}
    champion = find_champion(NAME, "champion")
    assert champion in versions
    seeds = generate_episode_seeds(0, "gate", 400)
    means = {
        version.number: float(registered_agent.load_agent(version).play(seeds).returns.mean())
        for version in versions
    }
    reigned = [
        find_version(NAME, number=number)
        for number in alias_history.read_history(NAME, "champion").numbers
    ]
    print(f"mean returns {means}, champions {[version.number for version in reigned]}")  # noqa: T201 pytest -s shows it
    assert reigned[-1] == champion
    assert {verdict(later, earlier) for earlier, later in pairwise(reigned)} <= {"promote"}
    # What the gate promises: nobody is surely better. Among equals the mean of the champion need not be the highest.
    assert "promote" not in {
        verdict(version, champion) for version in versions if version != champion
    }


def verdict(challenger: Version, champion: Version) -> str:
    """Of the games that a promotion of these two has played: their seeds are those of the two and of the gate."""
    return matchup.arrange_matchup(challenger, champion, Gate()).play(Gate()).verdict
