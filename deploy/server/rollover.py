"""Run a command whenever an alias of a registered model moves to another version.

Reads   the version behind --alias: at start, every --every seconds, and after a webhook of MLflow.
Runs    the command after --, with MODEL_NAME, MODEL_VERSION, MODEL_ALIAS and MODEL_PATH in its
        environment.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import click
from mlflow.exceptions import MlflowException

from deploy.server.receiver import WebhookReceiver
from mlflow_sb3.client import env_vars, retry
from mlflow_sb3.registry import integrity, names, signing, versions
from mlflow_sb3.registry.model_version import Version
from mlflow_sb3.runs import signals

SECRET = "ROLLOVER_SECRET"  # noqa: S105 name of an environment variable
"""Environment variable with the secret of the webhook. The command does not inherit it."""

_log = logging.getLogger(__name__)


@dataclass
class Rollover:
    """Runs a command when an alias points to another version, until the command succeeds."""

    model_name: str
    alias: str
    command: tuple[str, ...]
    public_key: Path | None
    done: int | None = None
    """Number of the version for which the command last succeeded."""

    def poll(self) -> None:
        """Run the command if the alias points to another version than ``done``.

        An error is logged and not raised. The next call then tries again.
        """
        try:
            with env_vars.override_env(retry.FAIL_FAST_ENV):
                version = versions.find_version(self.model_name, alias=self.alias)
            if version.number != self.done:
                with integrity.fetch_version(version, public_key=self.public_key) as folder:
                    self._run_command(version, folder)
        except Exception as error:  # noqa: BLE001 each artifact store raises errors of its own
            _log.error(
                "no rollover of %s@%s: %s",
                self.model_name,
                self.alias,
                " ".join(str(error).split()),
            )

    def _run_command(self, version: Version, folder: Path) -> None:
        env = {name: value for name, value in os.environ.items() if name != SECRET}
        env |= {
            "MODEL_NAME": version.name,
            "MODEL_VERSION": str(version.number),
            "MODEL_ALIAS": self.alias,
            "MODEL_PATH": str(folder),
        }
        program = self.command[0]
        _log.info("alias %s points to %s: running %s", self.alias, version, program)
        start = time.monotonic()
        with signals.defer_signals() as stop:
            status = subprocess.run(
                self.command, env=env, stdin=subprocess.DEVNULL, check=False
            ).returncode
        seconds = time.monotonic() - start
        if status == 0:
            self.done = version.number
            _log.info("rolled over to %s in %.1f s", version, seconds)
        else:
            _log.error(
                "%s failed for %s with exit code %d after %.1f s", program, version, status, seconds
            )
        stop.raise_if_requested()


@click.command()
@click.option(
    "--model-name",
    default="cartpole-v1-dqn",
    show_default=True,
    help="Name of the registered model.",
)
@click.option("--alias", default="champion", show_default=True, help="Alias to follow.")
@click.option(
    "--every",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=1),
    help="Seconds between two requests to the registry.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Port for webhooks.  [default: no webhooks]",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on for webhooks."
)
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help=f"File with the secret of the webhook.  [default: the environment variable {SECRET}]",
)
@click.option(
    "--public-key",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="PEM file of the Ed25519 public key that must have signed the version.",
)
@click.argument("command", nargs=-1, required=True)
def rollover(  # noqa: PLR0917 click passes every option as an argument
    model_name: str,
    alias: str,
    every: float,
    port: int | None,
    host: str,
    secret_file: Path | None,
    public_key: Path | None,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND at start, and again whenever the alias moves to another version.

    Write COMMAND after two hyphens: rollover --alias champion -- ./restart.sh
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    _check_options(model_name, alias, public_key, command)
    alias_moved = threading.Event()
    if port is not None:
        receiver = _create_receiver(
            (host, port), _read_secret(secret_file), model_name, alias, alias_moved
        )
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        _log.info("listening on %s:%d", host, port)
    try:
        with signals.raise_on_signal():
            _follow(Rollover(model_name, alias, command, public_key), every, alias_moved)
    except signals.Interrupted as interrupted:
        _log.info("%s", interrupted)


def _follow(follower: Rollover, every: float, alias_moved: threading.Event) -> None:
    while True:
        # Cleared before the poll, so that a webhook during the poll causes another poll.
        alias_moved.clear()
        follower.poll()
        alias_moved.wait(every)


def _check_options(
    model_name: str, alias: str, public_key: Path | None, command: tuple[str, ...]
) -> None:
    try:
        names.check_model_name(model_name)
        names.check_alias(alias)
        signing.check_keys(None, public_key)
    except MlflowException as error:
        raise click.UsageError(error.message) from error
    if shutil.which(command[0]) is None:
        raise click.BadParameter(
            f"program {command[0]!r} is not on PATH. Give the path of an executable file.",
            param_hint="COMMAND",
        )


def _read_secret(file: Path | None) -> bytes:
    secret = (os.environ.get(SECRET, "") if file is None else file.read_text()).strip()
    if not secret:
        raise click.UsageError(
            "The secret of the webhook is missing. "
            f"Set the environment variable {SECRET} or give a --secret-file."
        )
    return secret.encode()


def _create_receiver(
    address: tuple[str, int],
    secret: bytes,
    model_name: str,
    alias: str,
    alias_moved: threading.Event,
) -> WebhookReceiver:
    try:
        return WebhookReceiver(
            address, secret=secret, model_name=model_name, alias=alias, alias_moved=alias_moved
        )
    except OSError as error:
        raise click.UsageError(
            f"Cannot listen on {address[0]}:{address[1]}: {error.strerror}. "
            "Give another --port or --host."
        ) from error


if __name__ == "__main__":
    rollover()
