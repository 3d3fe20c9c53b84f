"""What a webhook has to be to be believed, and what happens then: real requests, real commands."""

from __future__ import annotations

import hmac
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from deploy.server.process import find_free_port
from deploy.server.receiver import LARGEST, Receiver
from deploy.server.rollover import SECRET, Rollover, rollover
from mlflow_sb3.registry import model_version, versions
from tests import ROOT
from tests.conftest import Keys
from tests.processes import PATIENCE, until

KEY = b"a secret of the test"
ABOUT = {"name": "levels", "alias": "champion", "version": "2"}


def event(entity: str = "model_version_alias", action: str = "created", **data: str) -> bytes:
    """What MLflow sends when an alias was set, the champion of `levels` unless said otherwise."""
    return json.dumps(
        {
            "entity": entity,
            "action": action,
            "timestamp": "2026-01-01T00:00:00+00:00",
            "data": ABOUT | data,
        }
    ).encode()


def signature(body: bytes, *, key: bytes = KEY, age: float = 0.0) -> dict[str, str]:
    """The headers that MLflow documents for its deliveries."""
    named, stamp = "0b0c6b4e", str(int(time.time() - age))
    code = b64encode(hmac.digest(key, f"{named}.{stamp}.".encode() + body, "sha256")).decode()
    return {
        "X-MLflow-Delivery-Id": named,
        "X-MLflow-Timestamp": stamp,
        "X-MLflow-Signature": f"v1,{code}",
    }


def post(port: int, body: bytes, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/", body, headers)
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.fixture
def moved() -> threading.Event:
    return threading.Event()


@pytest.fixture
def port(moved: threading.Event) -> Iterator[int]:
    """Of a receiver that listens for the champion of `levels`."""
    with Receiver(
        ("127.0.0.1", 0), secret=KEY, concerns=("levels", "champion"), moved=moved
    ) as receiver:
        thread = threading.Thread(target=receiver.serve_forever, args=(0.02,))
        thread.start()
        yield receiver.server_port
        receiver.shutdown()
        thread.join()


def test_a_signed_delivery_of_now_about_our_alias_is_heard(
    port: int, moved: threading.Event
) -> None:
    status = post(port, event(), signature(event()))

    assert status == 202
    assert moved.is_set()


def test_a_copy_of_a_delivery_is_but_another_reason_to_look(port: int) -> None:
    headers = signature(event())

    assert [post(port, event(), headers) for _ in range(2)] == [202, 202]


@pytest.mark.parametrize(
    "body",
    [
        event(alias="challenger"),
        event(name="other"),
        event(action="deleted"),
        event("registered_model"),
    ],
    ids=["another alias", "another model", "a deleted alias", "another event"],
)
def test_a_delivery_about_something_else_is_taken_and_left(
    port: int, moved: threading.Event, body: bytes
) -> None:
    status = post(port, body, signature(body))

    assert status == 204
    assert not moved.is_set()


LONG = b" " * (LARGEST + 1)


def refused() -> dict[str, tuple[bytes, dict[str, str], int]]:
    """Deliveries of now, and what they are answered."""
    return {
        "unsigned": (event(), {}, 401),
        "of another secret": (event(), signature(event(), key=b"another"), 401),
        "with another body": (event(version="3"), signature(event()), 401),
        "with another timestamp": (
            event(),
            signature(event()) | {"X-MLflow-Timestamp": str(int(time.time()) + 1)},
            401,
        ),
        "with another id": (event(), signature(event()) | {"X-MLflow-Delivery-Id": "another"}, 401),
        "with a signature of another version": (event(), {"X-MLflow-Signature": "v2,YQ=="}, 401),
        "with a signature that is no text": (event(), {"X-MLflow-Signature": "v1,\xff"}, 401),
        "stale": (event(), signature(event(), age=600), 401),
        "of the future": (event(), signature(event(), age=-86400), 401),
        "too large": (LONG, signature(LONG), 413),
        "of more digits than a number may have": (b"", {"Content-Length": "9" * 5000}, 413),
        "of no length": (b"", {"Transfer-Encoding": "chunked"}, 411),
        "of a negative length": (b"", {"Content-Length": "-1"}, 411),
        "no JSON": (b"hello", signature(b"hello"), 400),
        "no text": (b"\xff\xfe\xfa", signature(b"\xff\xfe\xfa"), 400),
        "no event": (b"[]", signature(b"[]"), 400),
    }


@pytest.mark.parametrize("case", refused())
def test_what_is_not_to_be_believed_is_refused_in_one_line_without_its_body(
    port: int, moved: threading.Event, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    body, headers, expected = refused()[case]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest("POST", "/")
    for name, value in (({"Content-Length": str(len(body))} if body else {}) | headers).items():
        connection.putheader(name, value.encode("latin-1"))
    connection.endheaders(body if expected != 413 else None)

    status = connection.getresponse().status

    connection.close()
    assert status == expected
    assert not moved.is_set()
    (line,) = [
        record.getMessage() for record in caplog.records if record.name == "deploy.server.receiver"
    ]
    assert line.startswith("refused a delivery from 127.0.0.1: it ")
    assert "levels" not in line


def test_a_request_that_is_no_post_is_refused(port: int, moved: threading.Event) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/?champion")

    assert connection.getresponse().status == 501
    assert not moved.is_set()
    connection.close()


def appending(path: Path) -> tuple[str, ...]:
    """A command that writes down what it was told."""
    line = 'test -f "$MODEL_PATH/MLmodel" && echo "$MODEL_NAME $MODEL_VERSION $MODEL_ALIAS" >> "$0"'
    return ("sh", "-c", line, str(path))


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_a_command_runs_once_for_every_version_that_comes_to_bear_the_alias(
    levels: list[model_version.Version], tmp_path: Path
) -> None:
    served = Rollover("levels", "champion", appending(tmp_path / "log"), None)

    for version in (levels[0], levels[0], levels[1], levels[0]):
        versions.set_alias("levels", "champion", version.number)
        served.look()

    assert lines(tmp_path / "log") == [
        "levels 1 champion",
        "levels 2 champion",
        "levels 1 champion",
    ]


def test_a_command_that_fails_is_run_again_at_the_next_look(
    levels: list[model_version.Version], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    versions.set_alias("levels", "champion", levels[0].number)
    served = Rollover(
        "levels",
        "champion",
        ("sh", "-c", 'echo "$MODEL_VERSION" >> "$0"; exit 3', str(tmp_path / "log")),
        None,
    )

    served.look()
    served.look()

    assert lines(tmp_path / "log") == ["1", "1"]
    assert caplog.text.count("sh ended with 3 after") == 2


def test_nothing_runs_for_a_version_whose_files_changed(
    registered: model_version.Version, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    versions.set_alias("agent", "champion", 1)
    (stored,) = (tmp_path / "artifacts").rglob(f"{registered.model_id}/**/MLmodel")
    stored.write_text(stored.read_text() + "\n")

    Rollover("agent", "champion", appending(tmp_path / "log"), None).look()

    assert lines(tmp_path / "log") == []
    assert "agent@champion stays what it was: " in caplog.text
    assert "its files changed after registration" in caplog.text


def test_with_a_public_key_nothing_runs_for_a_version_of_another_signer(
    signed: model_version.Version, keys: Keys, other_keys: Keys, tmp_path: Path
) -> None:
    for log, key in (("theirs", other_keys.public), ("ours", keys.public)):
        Rollover(signed.name, "champion", appending(tmp_path / log), key).look()

    assert lines(tmp_path / "theirs") == []
    assert lines(tmp_path / "ours") == ["agent 1 champion"]


@pytest.mark.usefixtures("store")
def test_an_alias_that_nobody_bears_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Rollover("agent", "champion", appending(tmp_path / "log"), None).look()

    assert lines(tmp_path / "log") == []
    assert "registered model 'agent' does not exist" in caplog.text


@pytest.mark.usefixtures("store")
def test_files_in_an_object_store_that_is_away_are_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = {
        "MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
    }
    for name, value in (away | {"AWS_MAX_ATTEMPTS": "1"}).items():
        monkeypatch.setenv(name, value)
    MlflowClient().create_registered_model("agent")
    MlflowClient().create_model_version(
        "agent", "s3://away/agent", tags={model_version.DIGEST_TAG: "0" * 64}
    )
    versions.set_alias("agent", "champion", 1)

    Rollover("agent", "champion", appending(tmp_path / "log"), None).look()

    assert lines(tmp_path / "log") == []
    assert "agent@champion stays what it was: Could not connect to the endpoint URL" in caplog.text


def test_the_command_does_not_see_the_secret(
    levels: list[model_version.Version], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions.set_alias("levels", "champion", levels[0].number)
    monkeypatch.setenv(SECRET, "hush")

    Rollover("levels", "champion", ("sh", "-c", 'env > "$0"', str(tmp_path / "log")), None).look()

    assert "MODEL_VERSION=1" in lines(tmp_path / "log")
    assert not [line for line in lines(tmp_path / "log") if "hush" in line]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "5002", "--", "true"], "there is no secret to know MLflow's webhooks by"),
        (["--", "no-such-program"], "'no-such-program' is no program on PATH"),
        (["--alias", "latest", "--", "true"], "alias 'latest' cannot be set"),
        (["--model-name", "a/b", "--", "true"], "no registered model can be named 'a/b'"),
        ([], "Missing argument 'COMMAND...'"),
    ],
    ids=["no secret", "no program", "no alias", "no name", "no command"],
)
def test_wrong_usage_is_refused_with_the_way_out(
    arguments: Sequence[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SECRET, raising=False)

    done = CliRunner().invoke(rollover, arguments)

    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_a_port_that_is_taken_is_refused(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET, KEY.decode())

    done = CliRunner().invoke(rollover, ["--port", str(port), "--", "true"])

    assert done.exit_code == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in " ".join(
        done.output.split()
    )


@pytest.mark.process
def test_what_moves_while_the_command_runs_is_made_up_for_and_sigterm_waits_for_the_command(
    levels: list[model_version.Version], tmp_path: Path
) -> None:
    log, port = tmp_path / "log", find_free_port()
    versions.set_alias("levels", "champion", levels[0].number)
    (tmp_path / "secret").write_bytes(KEY + b"\n")
    options = [
        "--model-name",
        "levels",
        "--every",
        "3600",
        "--port",
        str(port),
        "--secret-file",
        str(tmp_path / "secret"),
    ]
    line = 'echo "begins $MODEL_VERSION" >> "$0"; until [ -e "$0.$MODEL_VERSION" ]; do sleep 0.1; done; echo "ends $MODEL_VERSION" >> "$0"'
    command = ["sh", "-c", line, str(log)]
    program = [sys.executable, "-m", "deploy.server.rollover", *options, "--", *command]
    variables = os.environ | {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()}

    with subprocess.Popen(
        program, cwd=ROOT, env=variables, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            until(lambda: lines(log) == ["begins 1"])
            for version in (levels[1], levels[2]):
                versions.set_alias("levels", "champion", version.number)
                assert post(port, event(), signature(event())) == 202
            Path(f"{log}.1").touch()
            until(lambda: lines(log) == ["begins 1", "ends 1", "begins 3"])
            process.send_signal(signal.SIGTERM)
            time.sleep(1)
            assert process.poll() is None
            Path(f"{log}.3").touch()
            said = process.communicate(timeout=PATIENCE)[1]
        finally:
            process.kill()
            for version in levels:
                Path(f"{log}.{version.number}").touch()

    assert process.returncode == 0, said
    assert lines(log) == ["begins 1", "ends 1", "begins 3", "ends 3"]
    assert "rolled over to levels/3" in said
    assert said.endswith("interrupted by SIGTERM\n")
