"""Tests of compose.yaml that do not need Docker."""

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


def pinned_packages(path: Path) -> set[str]:
    return set(re.findall(r"[\w.-]+==[\w.]+", path.read_text()))


def test_compose_yaml_follows_the_compose_schema() -> None:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        str(FOLDER / "compose.yaml"),
    ]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def test_every_secret_comes_from_a_variable_that_is_empty_in_the_example() -> None:
    example = dict(
        line.split("=", 1)
        for line in (FOLDER / ".env.example").read_text().splitlines()
        if line and line[0] != "#"
    )
    required = set(re.findall(r"\$\{(\w+)", TEXT))
    environment = {
        name: value
        for service in SERVICES.values()
        for name, value in service.get("environment", {}).items()
    }

    secrets = {
        name: value
        for name, value in environment.items()
        if re.search("PASSWORD|SECRET|KEY|BACKEND_STORE", name)
    }

    assert required == set(example)
    assert [name for name, value in example.items() if value] == ["DEFAULT_PERMISSION"]
    assert len(secrets) == 7
    assert [name for name, value in secrets.items() if "${" not in value] == []


def test_a_missing_secret_prevents_the_start() -> None:
    required = set(re.findall(r"\$\{(\w+):\?", TEXT))

    assert required == set(re.findall(r"\$\{(\w+)", TEXT)) - {"DEFAULT_PERMISSION"}


def test_only_the_proxy_has_ports_and_mlflow_checks_the_host_header() -> None:
    command = SERVICES["mlflow"]["command"]

    assert [name for name, service in SERVICES.items() if "ports" in service] == ["proxy"]
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert "--allowed-hosts=${DOMAIN}" in command
    assert "--app-name=basic-auth" in command
    assert not [
        option for option in command if "password" in option.lower() or "://mlflow:" in option
    ]


def test_versions_are_pinned_like_in_requirements_txt() -> None:
    images = [service["image"] for service in SERVICES.values() if "image" in service]
    pins = pinned_packages(ROOT / "requirements.txt") | pinned_packages(FOLDER / "requirements.txt")

    assert [image for image in images if not re.search(r":\d+\.\d+", image)] == []
    assert pinned_packages(FOLDER / "Dockerfile") <= pins
    assert any(pin.startswith("mlflow==") for pin in pinned_packages(FOLDER / "Dockerfile"))


def test_a_service_waits_until_its_dependencies_are_ready() -> None:
    conditions = [
        (name, condition["condition"])
        for service in SERVICES.values()
        for name, condition in service.get("depends_on", {}).items()
    ]

    assert len(conditions) == 4
    for name, condition in conditions:
        assert condition == "service_completed_successfully" or (
            condition == "service_healthy" and "healthcheck" in SERVICES[name]
        )


def test_the_health_check_of_the_database_uses_tcp() -> None:
    """While the image creates the databases, PostgreSQL only listens on a socket file."""
    assert "--host=127.0.0.1" in SERVICES["database"]["healthcheck"]["test"]
