"""Tests of several calls of `main` at once, for one registered model on PostgreSQL."""

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
N_CALLS = int(os.environ.get("MAINS", "3"))
"""Number of calls. Eight calls take ten minutes on a slow machine."""
TIMESTEPS = (300, 20_000, 2_000, 1_000, 8_000, 12_000, 500, 4_000)
"""Training steps of each call."""


def test_simultaneous_calls_agree_on_a_champion_that_passes_the_gate(
    mlflow_server: str, tmp_path: Path
) -> None:
    experiment_id = mlflow.create_experiment("mains")
    place = Place(tmp_path, {"MLFLOW_TRACKING_URI": mlflow_server, "XDG_STATE_HOME": str(tmp_path)})
    calls = [
        ["-P", f"timesteps={timesteps}", "-P", f"seed={seed}"]
        for seed, timesteps in enumerate(TIMESTEPS[:N_CALLS])
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

    assert [process.wait() for process in started] == [0] * N_CALLS
    runs = MlflowClient().search_runs([experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(runs) == 5 * N_CALLS
    registered = MlflowClient().search_model_versions(f"name = '{NAME}'")
    assert sorted(int(version.version) for version in registered) == list(range(1, N_CALLS + 1))
    versions = [find_version(NAME, number=number) for number in range(1, N_CALLS + 1)]
    assert {version.run_id for version in versions} <= {run.info.run_id for run in runs}
    champion = find_champion(NAME, "champion")
    assert champion in versions
    seeds = generate_episode_seeds(0, "gate", 400)
    means = {
        version.number: float(registered_agent.load_agent(version).play(seeds).returns.mean())
        for version in versions
    }
    champions = [
        find_version(NAME, number=number)
        for number in alias_history.read_history(NAME, "champion").numbers
    ]
    print(f"mean returns {means}, champions {[version.number for version in champions]}")
    assert champions[-1] == champion
    assert {repeat_gate(later, earlier) for earlier, later in pairwise(champions)} <= {"promote"}
    # The gate only guarantees that no version is significantly better. The champion need not have
    # the highest mean return.
    assert "promote" not in {
        repeat_gate(version, champion) for version in versions if version != champion
    }


def repeat_gate(challenger: Version, champion: Version) -> str:
    """Repeat the gate of a promotion with the same seeds, and return its verdict."""
    return matchup.arrange_matchup(challenger, champion, Gate()).play().verdict
