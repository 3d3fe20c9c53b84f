"""The examples and the table of ``docs/own-script.md``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.project.conftest import Place
from tests.project.readme import example

PAGE = ROOT / "docs" / "own-script.md"


def test_every_row_of_the_comparison_names_a_test() -> None:
    table = PAGE.read_text().partition("## Comparison")[2]
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    sources = "\n".join(path.read_text() for path in (ROOT / "tests/autologging").glob("*.py"))

    named = [re.search(r"`(test_\w+)` \|$", row) for row in rows]

    assert len(rows) > 15
    assert all(named)
    assert [match[1] for match in named if match and f"def {match[1]}(" not in sources] == []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty folder that scripts can import the package from."""
    return Place(tmp_path, {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})


@pytest.mark.process
def test_the_documented_two_lines_log_an_agent(place: Place) -> None:
    script = example("autolog").replace("50_000", "2_500")
    assert example("autolog-short").strip().splitlines()[-2:] == [
        line
        for line in example("autolog").splitlines()
        if "mlflow_sb3.autolog" in line or "learn(" in line
    ]

    done = place.run([sys.executable, "-c", f"{script}\nassert action in (0, 1)"])

    assert done.returncode == 0, done.stderr
    [run] = place.runs()
    assert run.info.status == "FINISHED"


@pytest.mark.process
def test_the_documented_callback_logs_an_agent_with_normalization(place: Place) -> None:
    script = re.sub(r"(\d+)_000", r"\g<1>00", example("callback"))
    check = """
import numpy as np
import mlflow_sb3

observation = np.array([[1.0, 0.0, 0.5]], np.float32)
loaded = mlflow_sb3.load_model("models:/my-pendulum@challenger", env=make_vec_env("Pendulum-v1"),
                               allow_pickle=True)
normalized = loaded.get_vec_normalize_env().normalize_obs(observation)
assert not np.allclose(normalized, observation)
expected, _ = loaded.predict(normalized, deterministic=True)
actual, _ = mlflow_sb3.load_policy("models:/my-pendulum@challenger").predict(observation)
assert np.allclose(actual, expected, atol=1e-5)
"""

    done = place.run([sys.executable, "-c", script + check])

    assert done.returncode == 0, done.stderr
    [run] = place.runs()
    assert run.data.metrics["eval/kept_step"] % 200 == 0
    assert "norm_obs" in run.data.params["sb3/normalize"]
    files = place.client.list_artifacts(run.info.run_id, "checkpoints")
    assert [file.path for file in files] == [
        "checkpoints/step_000000500.zip",
        "checkpoints/step_000001000.zip",
    ]
