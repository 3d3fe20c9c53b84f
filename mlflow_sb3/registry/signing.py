"""Sign digests of models and files with Ed25519 keys, and verify the signatures.

The package ``cryptography`` is imported only if a key is used.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mlflow.exceptions import MlflowException

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

KeyPath = str | os.PathLike[str]

Subject = Literal["model", "file"]
"""What a digest belongs to: a model version, or a file of a run.

It is a part of the signed message. A signature of one subject is never valid for the other.
"""
_REMEDIES = {
    "private": "Create a key without a password: "
    "`openssl genpkey -algorithm ed25519 -out private.pem`.",
    "public": "Create the public key: `openssl pkey -in private.pem -pubout -out public.pem`.",
}


def check_keys(signing_key: KeyPath | None, public_key: KeyPath | None = None) -> None:
    """Check that keys can sign and verify, before any work starts.

    Args:
        signing_key: PEM file of an Ed25519 private key.
        public_key: PEM file of an Ed25519 public key.

    Raises:
        MlflowException: A file cannot be read or holds no such key.
    """
    if signing_key is not None:
        _load_private_key(signing_key)
    if public_key is not None:
        _load_public_key(public_key)


def generate_private_key() -> bytes:
    """Return a new Ed25519 private key in PEM (PKCS 8), without a password."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def sign_digest(digest: str, private_key: KeyPath, *, subject: Subject = "model") -> str:
    """Sign a digest.

    Args:
        digest: Digest from ``digest.hash_folder``, or SHA-256 digest of a file.
        private_key: PEM file (PKCS 8) of an Ed25519 private key without a password.
        subject: What the digest belongs to.

    Returns:
        The signature in base64.

    Raises:
        MlflowException: The file cannot be read or holds no such key.
    """
    signature = _load_private_key(private_key).sign(_make_message(digest, subject))
    return base64.b64encode(signature).decode()


def verify_digest(
    digest: str, signature: str, public_key: KeyPath, *, subject: Subject = "model"
) -> bool:
    """Return whether the signature is valid for the digest and the key.

    Args:
        digest: Digest, as for ``sign_digest``.
        signature: Signature from ``sign_digest``. Text that is not base64 is not valid.
        public_key: PEM file of an Ed25519 public key.
        subject: What the digest belongs to.

    Raises:
        MlflowException: The file cannot be read or holds no such key.
    """
    return _is_valid(_load_public_key(public_key), digest, signature, subject)


def has_signed(
    private_key: KeyPath, digest: str, signature: str, *, subject: Subject = "model"
) -> bool:
    """Return whether a private key made the signature; see ``verify_digest``."""
    key = _load_private_key(private_key).public_key()
    return _is_valid(key, digest, signature, subject)


def _is_valid(key: Ed25519PublicKey, digest: str, signature: str, subject: Subject) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(base64.b64decode(signature, validate=True), _make_message(digest, subject))
    except (InvalidSignature, TypeError, ValueError):
        return False
    return True


def _make_message(digest: str, subject: Subject) -> bytes:
    return f"mlflow-sb3 {subject} digest, signature version 1\n{digest}".encode()


def _load_private_key(path: KeyPath) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read_key(path, "private")
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError as error:  # cryptography raises it for a key with a password
        raise _build_key_error(path, "private", "is encrypted with a password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        problem = (
            "is a public key"
            if b"BEGIN PUBLIC KEY" in content
            else "holds no private key in PEM (PKCS 8)"
        )
        raise _build_key_error(path, "private", problem) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _build_key_error(path, "private", f"is of type {type(key).__name__}, not Ed25519")
    return key


def _load_public_key(path: KeyPath) -> Ed25519PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content = _read_key(path, "public")
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        problem = (
            "is a private key" if b"PRIVATE KEY-----" in content else "holds no public key in PEM"
        )
        raise _build_key_error(path, "public", problem) from error
    if not isinstance(key, Ed25519PublicKey):
        raise _build_key_error(path, "public", f"is of type {type(key).__name__}, not Ed25519")
    return key


def _read_key(path: KeyPath, kind: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _build_key_error(path, kind, f"cannot be read ({error.strerror})") from error


def _build_key_error(path: KeyPath, kind: str, problem: str) -> MlflowException:
    error: MlflowException = MlflowException.invalid_parameter_value(
        f"{kind.capitalize()} key {os.fspath(path)!r} {problem}. {_REMEDIES[kind]}"
    )
    return error
