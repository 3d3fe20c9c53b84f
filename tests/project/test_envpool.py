"""Run the code of docs/training.md on a simulator that steps many environments at once."""

from __future__ import annotations

import importlib.util

import pytest

from tests import ROOT
from tests.project.conftest import Place
from tests.project.readme import example

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(
        importlib.util.find_spec("envpool") is None, reason="EnvPool has more than 700 MB"
    ),
]


def test_main_trains_and_promotes_an_agent_in_envpool(place: Place) -> None:
    (place.folder / "envpool_envs.py").write_text(example("envpool"))
    command = example("envpool-main").replace("50000", "4000").replace("run .", f"run {ROOT}")

    done = place.shell(command)

    assert done.returncode == 0, done.stderr
    assert "over 400 episodes each, without common seeds" in done.stdout
    assert "Mean reward: " in done.stdout
