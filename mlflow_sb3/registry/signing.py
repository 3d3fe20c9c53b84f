"""Sign model digests with Ed25519 keys, and verify the signatures.

The package ``cryptography`` is imported only if a key is used.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

KeyPath = str | os.PathLike[str]

_MESSAGE_PREFIX = b"mlflow-sb3 model digest, signature version 1\n"
"""Prefix of every signed message.

With it, a signature that the key made for another purpose is never valid here.
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


def sign_digest(digest: str, private_key: KeyPath) -> str:
    """Sign a digest.

    Args:
        digest: Digest from ``digest.hash_folder``.
        private_key: PEM file (PKCS 8) of an Ed25519 private key without a password.

    Returns:
        The signature in base64.

    Raises:
        MlflowException: The file cannot be read or holds no such key.
    """
    signature = _load_private_key(private_key).sign(_MESSAGE_PREFIX + digest.encode())
    return base64.b64encode(signature).decode()


def verify_digest(digest: str, signature: str, public_key: KeyPath) -> bool:
    """Return whether the signature is valid for the digest and the key.

    Args:
        digest: Digest from ``digest.hash_folder``.
        signature: Signature from ``sign_digest``. Text that is not base64 is not valid.
        public_key: PEM file of an Ed25519 public key.

    Raises:
        MlflowException: The file cannot be read or holds no such key.
    """
    from cryptography.exceptions import InvalidSignature

    key = _load_public_key(public_key)
    try:
        signed = base64.b64decode(signature, validate=True)
        key.verify(signed, _MESSAGE_PREFIX + digest.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


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
