from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import scale
from benchmarks.scale import NAME, Team
from deploy.server import postgres

pytestmark = pytest.mark.postgres

BEAT = ("POST /api/2.0/mlflow/runs/set-tag", "GET /api/2.0/mlflow/runs/get")
"""How often both of these come depends on the time that a step takes."""


def requests(team: Team, name: str, *options: str) -> tuple[list[str], int]:
    """What a step asks the server, without what the address is about and the beats; and how many tags it sets more than it reads runs."""
    before = len(team.log.read_text())
    team.step(name, *options)
    asked = re.findall(r'"([A-Z]+ /\S*) HTTP/1\.1" \d+', team.log.read_text()[before:])
    kinds = [re.sub(r"\?.*|(?<=/artifacts/).*|(?<=/logged-models/)m-\w+", "", one) for one in asked]
    return sorted(kind for kind in kinds if kind not in BEAT), kinds.count(BEAT[0]) - kinds.count(
        BEAT[1]
    )


def test_promote_asks_the_server_as_often_among_hundreds_of_versions_and_runs_as_with_one(
    tmp_path: Path,
) -> None:
    with (
        postgres.run_postgres(tmp_path / "postgres.log") as database,
        scale.teams(tmp_path, database, ["one", "many"]) as teams,
    ):
        for team in teams.values():
            team.step("train", "--timesteps", "300")
            team.step("log_model", "--run-id", team.client.search_runs(["0"])[0].info.run_id)
            team.step("promote", "--rule", "force", "--reason", "somebody has to be the first")
        scale.fill(teams["many"], versions=200, runs=500)
        for team in teams.values():
            team.step("log_model", "--run-id", str(team.client.get_model_version(NAME, "1").run_id))

        ties = [requests(team, "promote") for team in teams.values()]
        bests = [
            requests(team, "promote", "--candidates", "best", "--top", "1", "--episodes", "2")
            for team in teams.values()
        ]

    assert ties[0] == ties[1]
    assert bests[0] == bests[1]
    assert min(len(ties[0][0]), len(bests[0][0])) > 10
