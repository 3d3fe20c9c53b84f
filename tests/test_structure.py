"""The walls of the house: what imports what, what opens what, and what has to be in step."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mlflow_sb3
from steps.evaluate import evaluate
from steps.log_model import log_model
from steps.main import main
from steps.promote import promote
from steps.reproduce import reproduce
from steps.rollback import rollback
from steps.train import train
from tests import ROOT

SOURCES = sorted(
    path for folder in ("mlflow_sb3", "steps", "deploy") for path in (ROOT / folder).rglob("*.py")
)
ENTRY_POINTS: dict[str, Any] = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
COMMANDS: dict[str, click.Command] = {
    "main": main,
    "train": train,
    "log_model": log_model,
    "promote": promote,
    "rollback": rollback,
    "evaluate": evaluate,
    "reproduce": reproduce,
}


def python(code: str, *arguments: str) -> str:
    """Run code in a process of its own and return what it prints."""
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_neither_torch_nor_sb3_is_loaded_by_what_acts_judges_and_registers() -> None:
    packages = ("inference", "envs", "registry", "promotion", "runs", "client", "reports")
    modules = (path for name in packages for path in (ROOT / "mlflow_sb3" / name).glob("*.py"))
    light = [
        "mlflow_sb3",
        "mlflow_sb3.wrappers",
        "mlflow_sb3.flavor",
        "mlflow_sb3.flavor.api",
        "mlflow_sb3.flavor.registered_agent",
        "mlflow_sb3.tracking.run_logger",
        "mlflow_sb3.training.resume",
        "mlflow_sb3.training.provenance",
        "mlflow_sb3.training.reproduce",
        "deploy.server.rollover",
        *(
            ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            for path in modules
        ),
    ]

    loaded = python(
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "import mlflow_sb3; mlflow_sb3.load_policy\n"
        "import steps.promote, steps.rollback, steps.evaluate, steps.main, steps.reproduce, steps.deliver\n"
        "print(sorted({'torch', 'stable_baselines3', 'ray', 'rl_zoo3'} & set(sys.modules)))",
        *light,
    )

    assert loaded == "[]\n"


@pytest.mark.slow
def test_nothing_is_unpickled_on_the_way_to_an_action(saved: Path) -> None:
    acted = python(
        "import sys, mlflow.pyfunc, numpy as np, mlflow_sb3\n"
        "sys.modules['torch'] = sys.modules['stable_baselines3'] = None\n"
        "def refuse(event, args):\n"
        "    if event == 'pickle.find_class': raise RuntimeError('unpickled')\n"
        "sys.addaudithook(refuse)\n"
        "batch = np.zeros((1, 4))\n"
        "print(mlflow_sb3.load_policy(sys.argv[1]).predict(batch)[0].shape, mlflow.pyfunc.load_model(sys.argv[1]).predict(batch).shape)",
        str(saved),
    )

    assert acted == "(1,) (1,)\n"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_does_not_import_the_steps_and_nobody_imports_private_mlflow(
    source: Path,
) -> None:
    imported = [
        f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    ]

    private = [
        name
        for name in imported
        if name.startswith("mlflow.") and any(part.startswith("_") for part in name.split("."))
    ]
    attributes = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Attribute)
    ]
    private += [name for name in attributes if name.startswith("mlflow.") and "._" in name]
    assert private == []
    assert source.parent.name == "steps" or not [
        name for name in imported if name.startswith("steps")
    ]


@pytest.mark.parametrize("entry_point", COMMANDS)
def test_mlproject_has_the_options_and_the_defaults_of_the_command(entry_point: str) -> None:
    declared = {
        name: str(spec["default"]) if "default" in spec else None
        for name, spec in ENTRY_POINTS[entry_point]["parameters"].items()
    }
    options = [
        option for option in COMMANDS[entry_point].params if isinstance(option, click.Option)
    ]
    offered = {
        option.opts[0].removeprefix("--").replace("-", "_"): None
        if option.required
        else str(option.default)
        for option in options
    }

    assert declared == {
        name: default if default != "False" else "false" for name, default in offered.items()
    }


@pytest.mark.parametrize("entry_point", COMMANDS)
def test_mlproject_hands_every_parameter_on(entry_point: str) -> None:
    spec = ENTRY_POINTS[entry_point]
    handed_on = " ".join(f"--{name.replace('_', '-')} {{{name}}}" for name in spec["parameters"])

    assert spec["command"] == f"python -m steps.{entry_point} {handed_on}"


@pytest.mark.parametrize("entry_point", COMMANDS)
def test_the_readme_documents_every_parameter(entry_point: str) -> None:
    table = (ROOT / "README.md").read_text().partition("| entry point |")[2].partition("\n\n")[0]
    rows = table.partition(f"| `{entry_point}` ")[2]
    own = rows.splitlines()[0] + "".join(
        line for line in _until_next_entry_point(rows.splitlines()[1:])
    )

    assert [
        name for name in ENTRY_POINTS[entry_point]["parameters"] if f"`{name}`" not in own
    ] == []


def _until_next_entry_point(lines: list[str]) -> list[str]:
    end = next((number for number, line in enumerate(lines) if line.startswith("| `")), len(lines))
    return lines[:end]


def test_one_list_of_pins_serves_pip_virtualenv_and_conda_and_fits_the_package() -> None:
    pins = {
        canonicalize_name(pin.name): pin
        for pin in _requirements((ROOT / "requirements.txt").read_text())
    }
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    ranges = {
        canonicalize_name(wanted.name): wanted
        for wanted in _requirements(setup["options"]["install_requires"])
    }

    assert yaml.safe_load((ROOT / "python_env.yaml").read_text())["dependencies"] == [
        "-r requirements.txt"
    ]
    assert yaml.safe_load((ROOT / "conda.yaml").read_text())["dependencies"][-1] == {
        "pip": ["-r requirements.txt"]
    }
    assert set(pins) == set(ranges)
    for name, pin in pins.items():
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert ranges[name].specifier.contains(specifier.version), (
            f"{pin} is outside of {ranges[name]}"
        )


def _requirements(text: str) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


def test_public_names_are_handed_on() -> None:
    assert all(callable(getattr(mlflow_sb3, name)) for name in mlflow_sb3.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = mlflow_sb3.nothing
