from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import scale
from benchmarks.scale import NAME, BenchmarkServer
from deploy.server import postgres

pytestmark = pytest.mark.postgres

HEARTBEAT = ("POST /api/2.0/mlflow/runs/set-tag", "GET /api/2.0/mlflow/runs/get")
"""Requests of a heartbeat. Their number depends on the duration of the step."""


def count_requests(server: BenchmarkServer, name: str, *options: str) -> tuple[list[str], int]:
    """Run a step and return its requests without ids and without heartbeats.

    The second value is the number of tags that the step sets minus the number of runs it reads.
    """
    before = len(server.log.read_text())
    server.step(name, *options)
    requests = re.findall(r'"([A-Z]+ /\S*) HTTP/1\.1" \d+', server.log.read_text()[before:])
    variable = r"\?.*|(?<=/artifacts/).*|(?<=/logged-models/)m-\w+"
    kinds = [re.sub(variable, "", request) for request in requests]
    own = sorted(kind for kind in kinds if kind not in HEARTBEAT)
    return own, kinds.count(HEARTBEAT[0]) - kinds.count(HEARTBEAT[1])


def test_the_requests_of_promote_do_not_depend_on_the_number_of_versions(
    tmp_path: Path,
) -> None:
    with (
        postgres.run_postgres(tmp_path / "postgres.log") as database,
        scale.run_servers(tmp_path, database, ["one", "many"]) as servers,
    ):
        for server in servers.values():
            server.step("train", "--timesteps", "300")
            server.step("log_model", "--run-id", server.client.search_runs(["0"])[0].info.run_id)
            server.step("promote", "--rule", "force", "--reason", "first champion")
        scale.add_copies(servers["many"], versions=200, runs=500)
        for server in servers.values():
            server.step(
                "log_model", "--run-id", str(server.client.get_model_version(NAME, "1").run_id)
            )

        ties = [count_requests(server, "promote") for server in servers.values()]
        bests = [
            count_requests(
                server, "promote", "--candidates", "best", "--top", "1", "--episodes", "2"
            )
            for server in servers.values()
        ]

    assert ties[0] == ties[1]
    assert bests[0] == bests[1]
    assert min(len(ties[0][0]), len(bests[0][0])) > 10
