from __future__ import annotations

import ast
import base64
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from mlflow.exceptions import MlflowException

from mlflow_sb3.registry import signing
from tests import ROOT
from tests.conftest import Keys, openssl

DIGEST = "5e" * 32
OTHER_DIGEST = "5f" * 32


def test_a_signature_is_valid_for_its_digest_and_its_key(keys: Keys) -> None:
    signature = signing.sign_digest(DIGEST, keys.private)

    assert len(base64.b64decode(signature, validate=True)) == 64
    assert signing.verify_digest(DIGEST, signature, keys.public)


def test_a_signature_is_not_valid_for_another_digest(keys: Keys) -> None:
    signature = signing.sign_digest(DIGEST, keys.private)

    assert not signing.verify_digest(OTHER_DIGEST, signature, keys.public)


def test_a_signature_is_not_valid_for_another_key(keys: Keys, other_keys: Keys) -> None:
    signature = signing.sign_digest(DIGEST, keys.private)

    assert not signing.verify_digest(DIGEST, signature, other_keys.public)


def test_a_signature_with_one_changed_bit_is_not_valid(keys: Keys) -> None:
    signature = base64.b64decode(signing.sign_digest(DIGEST, keys.private))

    for bit in range(len(signature) * 8):
        changed = (int.from_bytes(signature) ^ 1 << bit).to_bytes(len(signature))
        text = base64.b64encode(changed).decode()
        assert not signing.verify_digest(DIGEST, text, keys.public), bit


@pytest.mark.parametrize("signature", ["", "AAAA", "no base64!", "é", "A" * 88])
def test_other_text_is_not_a_valid_signature(signature: str, keys: Keys) -> None:
    assert not signing.verify_digest(DIGEST, signature, keys.public)


@pytest.mark.parametrize(
    "message", [DIGEST.encode(), bytes.fromhex(DIGEST), b"some other tool: " + DIGEST.encode()]
)
def test_a_signature_for_another_purpose_is_not_valid(message: bytes, keys: Keys) -> None:
    key = load_pem_private_key(keys.private.read_bytes(), password=None)
    assert isinstance(key, Ed25519PrivateKey)
    signature = base64.b64encode(key.sign(message)).decode()

    assert not signing.verify_digest(DIGEST, signature, keys.public)


def test_openssl_verifies_a_signature(keys: Keys, tmp_path: Path) -> None:
    message, signature = tmp_path / "message", tmp_path / "signature"
    message.write_text(f"mlflow-sb3 model digest, signature version 1\n{DIGEST}")
    signature.write_bytes(base64.b64decode(signing.sign_digest(DIGEST, keys.private)))

    openssl(
        f"pkeyutl -verify -pubin -inkey {keys.public} -rawin -in {message} -sigfile {signature}"
    )


@pytest.mark.parametrize(
    ("name", "problem"),
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
def test_a_bad_private_key_is_refused_with_a_remedy(
    name: str, problem: str, bad_keys: Path
) -> None:
    message = rf"^Private key '.*' {problem}\. Create a key .*`openssl genpkey"
    for use_key in (signing.check_keys, lambda path: signing.sign_digest(DIGEST, path)):
        with pytest.raises(MlflowException, match=message) as raised:
            use_key(bad_keys / name)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "problem"),
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
def test_a_bad_public_key_is_refused_with_a_remedy(name: str, problem: str, bad_keys: Path) -> None:
    message = rf"^Public key '.*' {problem}\. Create the public key: `openssl pkey"
    for use_key in (
        lambda path: signing.check_keys(None, path),
        lambda path: signing.verify_digest(DIGEST, "", path),
    ):
        with pytest.raises(MlflowException, match=message) as raised:
            use_key(bad_keys / name)
        assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def bad_keys(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that users may pass as a key by mistake."""
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


def test_only_this_module_imports_cryptography() -> None:
    for path in [*(ROOT / "mlflow_sb3").rglob("*.py"), *(ROOT / "steps").rglob("*.py")]:
        if path.name != "signing.py":
            modules = find_imported_packages(path)
            assert "cryptography" not in modules, path


def find_imported_packages(path: Path) -> set[str]:
    """Return the top-level packages that a module imports."""
    packages: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            packages.add(str(node.module).partition(".")[0])
        elif isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
    return packages


@pytest.mark.process
def test_a_policy_loads_without_cryptography_if_no_key_is_used(saved: Path) -> None:
    program = (
        "import sys; sys.modules['cryptography'] = None; import mlflow_sb3; "
        "print(mlflow_sb3.load_policy(sys.argv[1]).environment is None)"
    )

    completed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(saved)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert completed.stdout == "False\n"
