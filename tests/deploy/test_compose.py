"""The compose file for real use. Docker is not needed for what is said here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests import ROOT

FOLDER = ROOT / "deploy" / "server"
TEXT = (FOLDER / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]


def pins(path: Path) -> set[str]:
    return set(re.findall(r"[\w.-]+==[\w.]+", path.read_text()))


def test_it_is_a_compose_file() -> None:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        str(FOLDER / "compose.yaml"),
    ]

    checked = subprocess.run(command, capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stdout


def test_every_secret_comes_from_a_variable_that_the_example_names_without_a_value() -> None:
    example = dict(
        line.split("=", 1)
        for line in (FOLDER / ".env.example").read_text().splitlines()
        if line and line[0] != "#"
    )
    wanted = set(re.findall(r"\$\{(\w+)", TEXT))
    given = {
        name: value
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
    }

    secrets = {
        name: value
        for name, value in given.items()
        if re.search("PASSWORD|SECRET|KEY|BACKEND_STORE", name)
    }

    assert wanted == set(example)
    assert [name for name, value in example.items() if value] == ["DEFAULT_PERMISSION"]
    assert len(secrets) == 7
    assert [name for name, value in secrets.items() if "${" not in value] == []


def test_a_secret_that_is_missing_stops_the_start() -> None:
    needed = set(re.findall(r"\$\{(\w+):\?", TEXT))

    assert needed == set(re.findall(r"\$\{(\w+)", TEXT)) - {"DEFAULT_PERMISSION"}


def test_only_the_proxy_can_be_reached_and_mlflow_answers_to_its_name_alone() -> None:
    command = SERVICES["mlflow"]["command"]

    assert [name for name, service in SERVICES.items() if "ports" in service] == ["proxy"]
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert "--allowed-hosts=${DOMAIN}" in command
    assert "--app-name=basic-auth" in command
    assert not [
        option for option in command if "password" in option.lower() or "://mlflow:" in option
    ]


def test_versions_are_fixed_and_those_of_the_project() -> None:
    images = [service["image"] for service in SERVICES.values() if "image" in service]
    known = pins(FOLDER.parent / "requirements.txt") | pins(FOLDER / "requirements.txt")

    assert [image for image in images if not re.search(r":\d+\.\d+", image)] == []
    assert pins(FOLDER / "Dockerfile") <= known
    assert any(pin.startswith("mlflow==") for pin in pins(FOLDER / "Dockerfile"))


def test_whoever_waits_for_a_service_waits_until_it_is_ready() -> None:
    waits = [
        (name, condition["condition"])
        for service in SERVICES.values()
        for name, condition in service.get("depends_on", {}).items()
    ]

    assert len(waits) == 4
    for name, condition in waits:
        assert condition == "service_completed_successfully" or (
            condition == "service_healthy" and "healthcheck" in SERVICES[name]
        )


def test_the_database_is_not_called_ready_while_the_image_still_makes_it() -> None:
    """For that time the image lets it listen on a socket file alone."""
    assert "--host=127.0.0.1" in SERVICES["database"]["healthcheck"]["test"]
