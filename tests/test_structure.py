"""The structure of the project: imports, sizes, private names, and files that must agree."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mlflow_sb3
from mlflow_sb3.cli.evaluate import evaluate
from mlflow_sb3.cli.export_agent import export_agent
from mlflow_sb3.cli.import_agent import import_agent
from mlflow_sb3.cli.log_model import log_model
from mlflow_sb3.cli.main import main
from mlflow_sb3.cli.promote import promote
from mlflow_sb3.cli.reproduce import reproduce
from mlflow_sb3.cli.rollback import rollback
from mlflow_sb3.cli.train import train
from tests import ROOT

PACKAGE = ROOT / "mlflow_sb3"
SOURCES = sorted(
    path for folder in ("mlflow_sb3", "steps", "deploy") for path in (ROOT / folder).rglob("*.py")
)
WITHOUT_TORCH = ("inference", "envs", "registry", "promotion", "runs", "client", "reports")
"""Packages that never import torch or Stable-Baselines3."""
ADAPTERS = {PACKAGE / "flavor" / "sb3_internals.py", PACKAGE / "flavor" / "torch_internals.py"}
"""The only modules that use private names of Stable-Baselines3 and torch."""
DOCUMENTED = {"os._exit"}
"""Documented functions that have an underscore in their names."""
ENTRY_POINTS: dict[str, Any] = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
COMMANDS: dict[str, click.Command] = {
    "main": main,
    "train": train,
    "log_model": log_model,
    "import": import_agent,
    "export": export_agent,
    "promote": promote,
    "rollback": rollback,
    "evaluate": evaluate,
    "reproduce": reproduce,
}


def run_python(code: str, *arguments: str) -> str:
    """Run code in its own process and return its standard output."""
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_names(source: Path) -> list[str]:
    """Return the dotted names that a module imports."""
    return [
        f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    ]


def private_attributes(source: Path) -> Iterator[str]:
    """Yield each use of a private attribute of an object that the module did not define."""
    tree = ast.parse(source.read_text())
    own_classes = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    own_attributes = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in {"self", "cls"}
    } | {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not is_private(node.attr):
            continue
        if ast.unparse(node.value) in {"self", "cls", *own_classes} or node.attr in own_attributes:
            continue
        if ast.unparse(node) not in DOCUMENTED:
            yield f"{source.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@pytest.mark.process
def test_packages_without_torch_load_neither_torch_nor_sb3() -> None:
    modules = [
        "mlflow_sb3",
        "mlflow_sb3.wrappers",
        "mlflow_sb3.flavor.api",
        "mlflow_sb3.flavor.registered_agent",
        *(module_name(path) for path in (PACKAGE / "lifecycle").glob("*.py")),
        "mlflow_sb3.tracking.run_logger",
        "mlflow_sb3.training.resume",
        "mlflow_sb3.training.provenance",
        "mlflow_sb3.training.reproduce",
        "mlflow_sb3.exchange.agent_export",
        "mlflow_sb3.exchange.agent_import",
        "mlflow_sb3.workflow.main_run",
        "mlflow_sb3.workflow.summary",
        "deploy.server.rollover",
        *(f"steps.{name}" for name in (*COMMANDS, "deliver")),
        "mlflow_sb3.cli.group",
        *(module_name(path) for name in WITHOUT_TORCH for path in (PACKAGE / name).glob("*.py")),
    ]

    loaded = run_python(
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "import mlflow_sb3; mlflow_sb3.load_policy\n"
        "heavy = {'torch', 'stable_baselines3', 'ray', 'rl_zoo3'}\n"
        "print(sorted(heavy & set(sys.modules)))",
        *modules,
    )

    assert loaded == "[]\n"


@pytest.mark.process
def test_loading_a_policy_unpickles_nothing(saved: Path) -> None:
    shapes = run_python(
        "import sys, mlflow.pyfunc, numpy as np, mlflow_sb3\n"
        "sys.modules['torch'] = sys.modules['stable_baselines3'] = None\n"
        "def refuse(event, args):\n"
        "    if event == 'pickle.find_class': raise RuntimeError('unpickled')\n"
        "sys.addaudithook(refuse)\n"
        "batch = np.zeros((1, 4))\n"
        "policy = mlflow_sb3.load_policy(sys.argv[1])\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "print(policy.predict(batch)[0].shape, model.predict(batch).shape)",
        str(saved),
    )

    assert shapes == "(1,) (1,)\n"


def test_at_most_five_modules_lie_outside_the_packages() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 5


def test_no_module_has_more_than_300_lines() -> None:
    too_long = {
        module_name(path): lines
        for path in SOURCES
        if (lines := len(path.read_text().splitlines())) > 300
    }

    assert too_long == {}


def test_no_line_has_more_than_100_characters() -> None:
    folders = ("mlflow_sb3", "steps", "deploy", "docs", "tests", "benchmarks")
    too_long = [
        f"{path.relative_to(ROOT)}:{number}"
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > 100
    ]

    assert too_long == []


def test_no_step_script_has_more_than_90_lines() -> None:
    modules = [command.callback.__module__ for command in COMMANDS.values() if command.callback]
    scripts = [
        *(ROOT / "steps" / f"{name}.py" for name in (*COMMANDS, "deliver")),
        *(PACKAGE / "cli" / f"{name.rpartition('.')[2]}.py" for name in (*modules, "deliver")),
    ]

    assert [path.name for path in scripts if len(path.read_text().splitlines()) > 90] == []


def test_no_two_classes_of_the_package_share_a_name() -> None:
    names = [
        node.name
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]

    assert sorted({name for name in names if names.count(name) > 1}) == []


@pytest.mark.parametrize("source", SOURCES, ids=module_name)
def test_a_module_imports_no_private_name_of_another_package(source: Path) -> None:
    foreign = [name for name in imported_names(source) if not name.startswith("__future__")]
    private = [name for name in foreign if any(is_private(part) for part in name.split("."))]

    assert source in ADAPTERS or private == []


@pytest.mark.parametrize("source", SOURCES, ids=module_name)
def test_a_module_uses_no_private_attribute_of_another_package(source: Path) -> None:
    assert source in ADAPTERS or list(private_attributes(source)) == []


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
def test_mlproject_passes_every_parameter_to_the_command(entry_point: str) -> None:
    spec = ENTRY_POINTS[entry_point]
    options = " ".join(f"--{name.replace('_', '-')} {{{name}}}" for name in spec["parameters"])

    assert spec["command"] == f"python -m steps.{entry_point} {options}"


def test_the_pins_cover_the_package_and_its_extras() -> None:
    pins = {
        canonicalize_name(pin.name): pin
        for pin in read_requirements((ROOT / "requirements.txt").read_text())
    }
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    texts = [setup["options"]["install_requires"], extras["train"], extras["video"]]
    ranges = {
        canonicalize_name(requirement.name): requirement
        for text in texts
        for requirement in read_requirements(text)
    }

    assert set(pins) == set(ranges)
    for name, pin in pins.items():
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert ranges[name].specifier.contains(specifier.version), f"{pin} is not in {ranges[name]}"


def test_virtualenv_and_conda_install_the_same_pins() -> None:
    python_env = yaml.safe_load((ROOT / "python_env.yaml").read_text())
    conda_env = yaml.safe_load((ROOT / "conda.yaml").read_text())

    assert python_env["dependencies"] == ["-r requirements.txt"]
    assert conda_env["dependencies"][-1] == {"pip": ["-r requirements.txt"]}


def read_requirements(text: str) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


def test_the_package_exports_its_public_functions() -> None:
    assert all(callable(getattr(mlflow_sb3, name)) for name in mlflow_sb3.__all__)


def test_an_unknown_attribute_of_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = mlflow_sb3.nothing
