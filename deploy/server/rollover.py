"""Roll over what serves a registered model when its alias moves.

Reads   the version behind --alias: on start, every --every seconds, and when a webhook of MLflow says that the alias was set.
Runs    the command after --, with MODEL_NAME, MODEL_VERSION, MODEL_ALIAS and MODEL_PATH in its environment.
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

from deploy.server.receiver import Receiver
from mlflow_sb3.client import env_vars, retry
from mlflow_sb3.registry import integrity, model_version, names, signing, versions
from mlflow_sb3.runs import signals

SECRET = "ROLLOVER_SECRET"  # noqa: S105 the name of the variable, not what is in it
"""Environment variable with the secret of the webhook; the command does not see it."""

_log = logging.getLogger(__name__)


@dataclass
class Rollover:
    """Runs a command for the version that bears an alias, one at a time, and not twice for the same one."""

    name: str
    alias: str
    command: tuple[str, ...]
    public_key: Path | None
    done: int | None = None
    """The version that the command ran for last, and ended well."""

    def look(self) -> None:
        """Ask the registry, and run the command if another version bears the alias. What fails is logged, and left to the next look."""
        try:
            with env_vars.temporary_env(retry.SHORT_RETRIES):
                version = versions.find_version(self.name, alias=self.alias)
            if version.number != self.done:
                with integrity.fetch_version(version, public_key=self.public_key) as folder:
                    self._roll_over(version, folder)
        except Exception as error:  # noqa: BLE001 every artifact store has errors of its own, and the next look tries again
            _log.error(
                "%s@%s stays what it was: %s", self.name, self.alias, " ".join(str(error).split())
            )

    def _roll_over(self, version: model_version.Version, folder: Path) -> None:
        ours = {
            "MODEL_NAME": version.name,
            "MODEL_VERSION": str(version.number),
            "MODEL_ALIAS": self.alias,
            "MODEL_PATH": str(folder),
        }
        theirs = {name: value for name, value in os.environ.items() if name != SECRET}
        _log.info("%s is %s now: running %s", version, self.alias, self.command[0])
        start = time.monotonic()
        with signals.defer_signals() as stop:
            status = subprocess.run(
                self.command, env=theirs | ours, stdin=subprocess.DEVNULL, check=False
            ).returncode
        seconds = time.monotonic() - start
        if status == 0:
            self.done = version.number
            _log.info("rolled over to %s in %.1f s", version, seconds)
        else:
            _log.error(
                "%s ended with %d after %.1f s, for %s", self.command[0], status, seconds, version
            )
        stop.obey()


@click.command()
@click.option(
    "--model-name", default="cartpole-v1-dqn", show_default=True, help="Registered model."
)
@click.option("--alias", default="champion", show_default=True, help="Alias that is served.")
@click.option(
    "--every",
    default=60.0,
    show_default=True,
    type=click.FloatRange(min=1),
    help="Seconds between two looks at the registry.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="To listen on for webhooks; without it, only the registry is asked.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help=f"Has the secret, in place of ${SECRET}.",
)
@click.option(
    "--public-key",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="PEM file; refuses what it did not sign.",
)
@click.argument("command", nargs=-1, required=True)
def rollover(  # noqa: PLR0917 a command's arguments are its options
    model_name: str,
    alias: str,
    every: float,
    port: int | None,
    host: str,
    secret_file: Path | None,
    public_key: Path | None,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND, written after --, whenever another version of the model bears the alias, and once on start."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    _check(model_name, alias, public_key)
    if shutil.which(command[0]) is None:
        raise click.BadParameter(f"{command[0]!r} is no program on PATH.", param_hint="COMMAND")
    moved = threading.Event()
    if port is not None:
        _listen(
            (host, port), secret=_secret(secret_file), concerns=(model_name, alias), moved=moved
        )
    served = Rollover(model_name, alias, command, public_key)
    try:
        with signals.raise_on_signal():
            while True:
                moved.clear()  # before the look: what moves meanwhile is looked at again
                served.look()
                moved.wait(every)
    except signals.Interrupted as interrupted:
        _log.info("%s", interrupted)


def _check(name: str, alias: str, public_key: Path | None) -> None:
    try:
        names.check_model_name(name)
        names.check_alias(alias)
        signing.check_keys(None, public_key)
    except MlflowException as error:
        raise click.UsageError(error.message) from error


def _secret(file: Path | None) -> bytes:
    secret = (os.environ.get(SECRET, "") if file is None else file.read_text()).strip()
    if not secret:
        raise click.UsageError(
            f"there is no secret to know MLflow's webhooks by; put it into ${SECRET} or into a --secret-file."
        )
    return secret.encode()


def _listen(
    address: tuple[str, int], *, secret: bytes, concerns: tuple[str, str], moved: threading.Event
) -> None:
    try:
        receiver = Receiver(address, secret=secret, concerns=concerns, moved=moved)
    except OSError as error:
        raise click.UsageError(
            f"cannot listen on {address[0]}:{address[1]}: {error.strerror}; give another --port or --host."
        ) from error
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    _log.info("listening on %s:%d", *address)


if __name__ == "__main__":
    rollover()
