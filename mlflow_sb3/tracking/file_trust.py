"""Sign the files of a run that a later step unpickles, and decide which files may be unpickled.

Everyone with the permission ``EDIT`` on an experiment can replace the files and the tags of its
runs. A signature shows who wrote a file. By default, a key of this machine signs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from mlflow.entities import Run

from mlflow_sb3.inference import agent_files
from mlflow_sb3.registry import signing
from mlflow_sb3.registry.model_version import DIGEST_TAG, SIGNATURE_TAG
from mlflow_sb3.registry.signing import KeyPath
from mlflow_sb3.runs import state_dir
from mlflow_sb3.tracking import atomic_file

_MACHINE_KEY = "machine-key.pem"


@dataclass(frozen=True)
class FileTrust:
    """The key that signs files of runs, and the files that may be unpickled.

    A file is trusted if ``signing_key``, the key of this machine, or the private key of
    ``public_key`` signed it, or if ``allow_pickle`` is set.

    Attributes:
        signing_key: PEM file of an Ed25519 private key. Empty for the key of this machine.
        public_key: PEM file of an Ed25519 public key. Empty for none.
        allow_pickle: Whether to trust all files.
    """

    signing_key: str = ""
    public_key: str = ""
    allow_pickle: bool = False

    def check_keys(self) -> None:
        """Check that the keys can sign and verify, before any work starts.

        Raises:
            MlflowException: A file cannot be read or holds no such key.
        """
        signing.check_keys(self.signing_key or get_machine_key(), self.public_key or None)

    def sign(self, digest: str) -> str:
        """Return the signature of a digest in base64."""
        return signing.sign_digest(digest, self.signing_key or get_machine_key(), subject="file")

    def is_trusted(self, digest: str, signature: str) -> bool:
        """Return whether a file may be unpickled.

        Args:
            digest: Digest of the file.
            signature: Signature of the digest. Empty if the file is not signed.
        """
        is_signed = self.allow_pickle or self._is_signed(digest, signature)
        return agent_files.is_unpickling_allowed(is_trusted=is_signed)

    def is_agent_trusted(self, run: Run) -> bool:
        """Return whether the agent of a training run may be unpickled."""
        tags = run.data.tags
        return self.is_trusted(tags.get(DIGEST_TAG, ""), tags.get(SIGNATURE_TAG, ""))

    def _is_signed(self, digest: str, signature: str) -> bool:
        private_keys: set[KeyPath] = {get_machine_key(), self.signing_key or get_machine_key()}
        if any(signing.has_signed(key, digest, signature, subject="file") for key in private_keys):
            return True
        return bool(self.public_key) and signing.verify_digest(
            digest, signature, self.public_key, subject="file"
        )


def get_machine_key() -> Path:
    """Return the private key of this user on this machine. The first call creates it."""
    path = state_dir.get_state_dir() / _MACHINE_KEY
    if not path.exists():
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                _write_private(path, signing.generate_private_key())
    return path


def _write_private(path: Path, content: bytes) -> None:
    """Write a file atomically that only this user can read."""
    draft = path.with_suffix(".draft")
    draft.touch(mode=0o600)
    draft.write_bytes(content)
    atomic_file.publish_draft(draft, path)
