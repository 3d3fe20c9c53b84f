from __future__ import annotations

import ast
import base64
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from mlflow.exceptions import MlflowException

from mlflow_sb3.registry import signing
from tests import ROOT
from tests.conftest import Keys, openssl

DIGEST = "5e" * 32


def test_a_signature_fits_its_digest_and_its_key(keys: Keys) -> None:
    signature = signing.sign_digest(DIGEST, keys.private)

    assert len(base64.b64decode(signature, validate=True)) == 64
    assert signing.verify_digest(DIGEST, signature, keys.public)


def test_a_signature_fits_no_other_digest(keys: Keys) -> None:
    assert not signing.verify_digest("5f" * 32, signing.sign_digest(DIGEST, keys.private), keys.public)


def test_a_signature_fits_no_other_key(keys: Keys, other_keys: Keys) -> None:
    assert not signing.verify_digest(DIGEST, signing.sign_digest(DIGEST, keys.private), other_keys.public)


def test_every_bit_of_a_signature_counts(keys: Keys) -> None:
    signature = base64.b64decode(signing.sign_digest(DIGEST, keys.private))

    for bit in range(len(signature) * 8):
        changed = (int.from_bytes(signature) ^ 1 << bit).to_bytes(len(signature))
        assert not signing.verify_digest(DIGEST, base64.b64encode(changed).decode(), keys.public), bit


@pytest.mark.parametrize("signature", ["", "AAAA", "no base64!", "é", "A" * 88])
def test_what_is_no_signature_fits_nothing(signature: str, keys: Keys) -> None:
    assert not signing.verify_digest(DIGEST, signature, keys.public)


@pytest.mark.parametrize(
    "message", [DIGEST.encode(), bytes.fromhex(DIGEST), b"some other tool: " + DIGEST.encode()]
)
def test_what_the_key_signed_for_another_purpose_is_no_signature(
    message: bytes, keys: Keys
) -> None:
    key = load_pem_private_key(keys.private.read_bytes(), password=None)
    assert isinstance(key, Ed25519PrivateKey)
    signature = base64.b64encode(key.sign(message)).decode()

    assert not signing.verify_digest(DIGEST, signature, keys.public)


def test_openssl_agrees_with_a_signature(keys: Keys, tmp_path: Path) -> None:
    (tmp_path / "message").write_text(f"mlflow-sb3 model digest, signature version 1\n{DIGEST}")
    (tmp_path / "signature").write_bytes(base64.b64decode(signing.sign_digest(DIGEST, keys.private)))

    openssl(
        f"pkeyutl -verify -pubin -inkey {keys.public} -rawin -in {tmp_path}/message -sigfile {tmp_path}/signature"
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing", r"cannot be read \(No such file or directory\)"),
        (".", r"cannot be read \(Is a directory\)"),
        ("text", r"holds no private key in PEM \(PKCS 8\)"),
        ("empty", r"holds no private key in PEM \(PKCS 8\)"),
        ("der", r"holds no private key in PEM \(PKCS 8\)"),
        ("encrypted", "is encrypted with a password"),
        ("public", "is a public key"),
        ("rsa", "is of type RSAPrivateKey, not Ed25519"),
        ("x25519", "is of type X25519PrivateKey, not Ed25519"),
        ("curve", r"holds no private key in PEM \(PKCS 8\)"),
    ],
)
def test_what_cannot_sign_is_refused_with_how_to_make_what_can(
    name: str, says: str, bad_keys: Path
) -> None:
    for refused in (signing.check_keys, lambda path: signing.sign_digest(DIGEST, path)):
        with pytest.raises(
            MlflowException, match=rf"^Private key '.*' {says}\. Create a key .*`openssl genpkey"
        ) as caught:
            refused(bad_keys / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing", r"cannot be read \(No such file or directory\)"),
        ("text", "holds no public key in PEM"),
        ("empty", "holds no public key in PEM"),
        ("private", "is a private key"),
        ("encrypted", "is a private key"),
        ("rsa.pub", "is of type RSAPublicKey, not Ed25519"),
        ("x25519.pub", "is of type X25519PublicKey, not Ed25519"),
    ],
)
def test_what_cannot_verify_is_refused_with_how_to_make_what_can(
    name: str, says: str, bad_keys: Path
) -> None:
    with pytest.raises(
        MlflowException, match=rf"^Public key '.*' {says}\. Create the public key: `openssl pkey"
    ) as caught:
        signing.verify_digest(DIGEST, "", bad_keys / name)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def bad_keys(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what people have in the place of a key."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "text").write_text("a key\n")
    (folder / "empty").write_text("")
    (folder / "private").write_bytes(keys.private.read_bytes())
    (folder / "public").write_bytes(keys.public.read_bytes())
    openssl(f"pkey -in {keys.private} -outform DER -out {folder}/der")
    openssl(f"pkey -in {keys.private} -aes256 -passout pass:secret -out {folder}/encrypted")
    openssl(f"genpkey -algorithm EC -pkeyopt ec_paramgen_curve:secp112r1 -out {folder}/curve")
    for algorithm in ("rsa", "x25519"):
        openssl(f"genpkey -algorithm {algorithm} -out {folder}/{algorithm}")
        openssl(f"pkey -in {folder}/{algorithm} -pubout -out {folder}/{algorithm}.pub")
    return folder


def test_only_this_module_imports_cryptography_and_nobody_imports_this_module_at_once() -> None:
    for source in [*(ROOT / "mlflow_sb3").glob("*.py"), *(ROOT / "steps").glob("*.py")]:
        tree = ast.parse(source.read_text())
        assert source.name == "signing.py" or "cryptography" not in _imported(ast.walk(tree)), (
            source
        )
        assert "signing" not in _imported(tree.body), source


def _imported(nodes: Iterable[ast.AST]) -> set[str]:
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            names |= {
                str(node.module).partition(".")[0],
                *(alias.name for alias in node.names),
                str(node.module).rpartition(".")[2],
            }
        elif isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
    return names


@pytest.mark.process
def test_a_policy_is_loaded_without_cryptography_where_no_key_is_given(saved: Path) -> None:
    load = "import sys; sys.modules['cryptography'] = None; import mlflow_sb3; print(mlflow_sb3.load_policy(sys.argv[1]).environment is None)"

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", load, str(saved)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "False\n"
