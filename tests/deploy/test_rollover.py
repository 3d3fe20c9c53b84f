"""Tests of the rollover command with real registries, webhooks and shell commands."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from deploy.server.process import find_free_port
from deploy.server.rollover import SECRET, Rollover, rollover
from mlflow_sb3.registry import model_version, versions
from tests import ROOT
from tests.conftest import Keys
from tests.deploy.webhooks import SECRET_KEY, alias_event, post, sign
from tests.processes import PROCESS_TIMEOUT, wait_until


def log_command(path: Path) -> tuple[str, ...]:
    """Return a command that appends its MODEL_... variables to a file."""
    line = 'test -f "$MODEL_PATH/MLmodel" && echo "$MODEL_NAME $MODEL_VERSION $MODEL_ALIAS" >> "$0"'
    return ("sh", "-c", line, str(path))


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.process
def test_the_command_runs_once_per_move_of_the_alias(
    levels: list[model_version.Version], tmp_path: Path
) -> None:
    follower = Rollover("levels", "champion", log_command(tmp_path / "log"), None)

    for version in (levels[0], levels[0], levels[1], levels[0]):
        versions.set_alias("levels", "champion", version.number)
        follower.poll()

    assert lines(tmp_path / "log") == [
        "levels 1 champion",
        "levels 2 champion",
        "levels 1 champion",
    ]


@pytest.mark.process
def test_a_failed_command_runs_again_at_the_next_poll(
    levels: list[model_version.Version], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    versions.set_alias("levels", "champion", levels[0].number)
    line = 'echo "$MODEL_VERSION" >> "$0"; exit 3'
    command = ("sh", "-c", line, str(tmp_path / "log"))
    follower = Rollover("levels", "champion", command, None)

    follower.poll()
    follower.poll()

    assert lines(tmp_path / "log") == ["1", "1"]
    assert caplog.text.count("sh failed for levels/1 with exit code 3 after") == 2


def test_the_command_does_not_run_for_a_version_with_changed_files(
    registered: model_version.Version, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    versions.set_alias("agent", "champion", 1)
    (mlmodel,) = (tmp_path / "artifacts").rglob(f"{registered.model_id}/**/MLmodel")
    mlmodel.write_text(mlmodel.read_text() + "\n")

    Rollover("agent", "champion", log_command(tmp_path / "log"), None).poll()

    assert lines(tmp_path / "log") == []
    assert "no rollover of agent@champion: " in caplog.text
    assert "changed after registration" in caplog.text


def test_with_a_public_key_the_command_only_runs_for_versions_signed_with_it(
    signed: model_version.Version, keys: Keys, other_keys: Keys, tmp_path: Path
) -> None:
    for log, key in (("other", other_keys.public), ("own", keys.public)):
        Rollover(signed.name, "champion", log_command(tmp_path / log), key).poll()

    assert lines(tmp_path / "other") == []
    assert lines(tmp_path / "own") == ["agent 1 champion"]


@pytest.mark.usefixtures("store")
def test_a_missing_model_is_logged_and_the_command_does_not_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Rollover("agent", "champion", log_command(tmp_path / "log"), None).poll()

    assert lines(tmp_path / "log") == []
    assert "no rollover of agent@champion: " in caplog.text
    assert "does not exist" in caplog.text


@pytest.mark.usefixtures("store")
def test_an_unreachable_object_store_is_logged_and_the_command_does_not_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreachable = {
        "MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_MAX_ATTEMPTS": "1",
    }
    for name, value in unreachable.items():
        monkeypatch.setenv(name, value)
    MlflowClient().create_registered_model("agent")
    MlflowClient().create_model_version(
        "agent", "s3://away/agent", tags={model_version.DIGEST_TAG: "0" * 64}
    )
    versions.set_alias("agent", "champion", 1)

    Rollover("agent", "champion", log_command(tmp_path / "log"), None).poll()

    assert lines(tmp_path / "log") == []
    assert "no rollover of agent@champion: Could not connect to the endpoint URL" in caplog.text


def test_the_command_does_not_inherit_the_secret(
    levels: list[model_version.Version], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions.set_alias("levels", "champion", levels[0].number)
    monkeypatch.setenv(SECRET, "hush")

    Rollover("levels", "champion", ("sh", "-c", 'env > "$0"', str(tmp_path / "log")), None).poll()

    assert "MODEL_VERSION=1" in lines(tmp_path / "log")
    assert not [line for line in lines(tmp_path / "log") if "hush" in line]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "5002", "--", "true"], "The secret of the webhook is missing"),
        (["--", "no-such-program"], "program 'no-such-program' is not on PATH"),
        (["--alias", "latest", "--", "true"], "'latest' is not a valid alias"),
        (["--model-name", "a/b", "--", "true"], "'a/b'"),
        ([], "Missing argument 'COMMAND...'"),
    ],
    ids=["no secret", "no program", "invalid alias", "invalid name", "no command"],
)
def test_wrong_usage_exits_with_2(
    arguments: Sequence[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SECRET, raising=False)

    result = CliRunner().invoke(rollover, arguments)

    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_an_occupied_port_exits_with_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET, SECRET_KEY.decode())

    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        result = CliRunner().invoke(rollover, ["--port", str(port), "--", "true"])

    message = f"Cannot listen on 127.0.0.1:{port}: Address already in use"
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


@pytest.mark.process
def test_moves_during_the_command_cause_another_run_and_sigterm_waits_for_the_command(
    levels: list[model_version.Version], tmp_path: Path
) -> None:
    log, port = tmp_path / "log", find_free_port()
    versions.set_alias("levels", "champion", levels[0].number)
    (tmp_path / "secret").write_bytes(SECRET_KEY + b"\n")
    options = ["--model-name", "levels", "--every", "3600", "--port", str(port)]
    options += ["--secret-file", str(tmp_path / "secret")]
    line = (
        'echo "begins $MODEL_VERSION" >> "$0"; '
        'until [ -e "$0.$MODEL_VERSION" ]; do sleep 0.1; done; '
        'echo "ends $MODEL_VERSION" >> "$0"'
    )
    command = ["sh", "-c", line, str(log)]
    program = [sys.executable, "-m", "deploy.server.rollover", *options, "--", *command]
    variables = os.environ | {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()}

    with subprocess.Popen(
        program, cwd=ROOT, env=variables, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            wait_until(lambda: lines(log) == ["begins 1"])
            for version in (levels[1], levels[2]):
                versions.set_alias("levels", "champion", version.number)
                assert post(port, alias_event(), sign(alias_event())) == 202
            Path(f"{log}.1").touch()
            wait_until(lambda: lines(log) == ["begins 1", "ends 1", "begins 3"])
            process.send_signal(signal.SIGTERM)
            time.sleep(1)
            assert process.poll() is None
            Path(f"{log}.3").touch()
            stderr = process.communicate(timeout=PROCESS_TIMEOUT)[1]
        finally:
            process.kill()
            for version in levels:
                Path(f"{log}.{version.number}").touch()

    assert process.returncode == 0, stderr
    assert lines(log) == ["begins 1", "ends 1", "begins 3", "ends 3"]
    assert "rolled over to levels/3" in stderr
    assert stderr.endswith("interrupted by SIGTERM\n")
