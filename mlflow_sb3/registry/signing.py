"""Ed25519 signatures of digests, made and checked with keys in PEM files."""

from __future__ import annotations

import base64
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from mlflow.exceptions import MlflowException

KeyPath = str | os.PathLike[str]

_PURPOSE = b"mlflow-sb3 model digest, signature version 1\n"
"""Begins every signed message, so that no signature that the key made for something else counts here."""
_REMEDIES = {
    "private": "give one that `openssl genpkey -algorithm ed25519 -out private.pem` makes, without a password.",
    "public": "give the one that `openssl pkey -in private.pem -pubout -out public.pem` writes.",
}


def check_private_key(path: KeyPath) -> None:
    """Refuse what cannot sign, before the work that is to be signed is done.

    Raises:
        MlflowException: The file cannot be read, or holds no Ed25519 private key, or one with a password.
    """
    _private_key(path)


def check_public_key(path: KeyPath) -> None:
    """Refuse what cannot verify, before the work that is to be verified is done.

    Raises:
        MlflowException: The file cannot be read, or holds no Ed25519 public key.
    """
    _public_key(path)


def sign(digest: str, private_key: KeyPath) -> str:
    """Sign a digest; the signature is text in base64.

    Args:
        digest: As ``digest.model_digest`` gives it.
        private_key: PEM file (PKCS 8) of an Ed25519 key without a password.

    Raises:
        MlflowException: As ``check_private_key``.
    """
    return base64.b64encode(_private_key(private_key).sign(_message(digest))).decode()


def verify(digest: str, signature: str, public_key: KeyPath) -> bool:
    """Whether the owner of a key signed this digest.

    Args:
        digest: As ``digest.model_digest`` gives it.
        signature: As ``sign`` gives it; anything else is no signature of anybody.
        public_key: PEM file of an Ed25519 key.

    Raises:
        MlflowException: The file cannot be read, or holds no Ed25519 public key.
    """
    key = _public_key(public_key)
    try:
        key.verify(base64.b64decode(signature, validate=True), _message(digest))
    except (InvalidSignature, ValueError):
        return False
    return True


def _message(digest: str) -> bytes:
    return _PURPOSE + digest.encode()


def _private_key(path: KeyPath) -> Ed25519PrivateKey:
    content = _read("private", path)
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError as error:  # what cryptography raises for a key with a password
        raise _refusal("private", path, "is encrypted with a password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        found = (
            "is a public key"
            if b"BEGIN PUBLIC KEY" in content
            else "holds no private key in PEM (PKCS 8)"
        )
        raise _refusal("private", path, found) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _refusal("private", path, f"is of type {type(key).__name__}, not Ed25519")
    return key


def _public_key(path: KeyPath) -> Ed25519PublicKey:
    content = _read("public", path)
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        found = (
            "is a private key" if b"PRIVATE KEY-----" in content else "holds no public key in PEM"
        )
        raise _refusal("public", path, found) from error
    if not isinstance(key, Ed25519PublicKey):
        raise _refusal("public", path, f"is of type {type(key).__name__}, not Ed25519")
    return key


def _read(kind: str, path: KeyPath) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _refusal(kind, path, f"cannot be read ({error.strerror})") from error


def _refusal(kind: str, path: KeyPath, found: str) -> MlflowException:
    refusal: MlflowException = MlflowException.invalid_parameter_value(
        f"{kind} key {os.fspath(path)!r} {found}; {_REMEDIES[kind]}"
    )
    return refusal


def check_keys(signing_key: KeyPath | None, public_key: KeyPath | None = None) -> None:
    """Refuse keys that cannot sign or verify, before the work that they are for is done."""
    if signing_key is not None or public_key is not None:
        for key, check in ((signing_key, check_private_key), (public_key, check_public_key)):
            if key is not None:
                check(key)
