from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from mlflow_sb3.registry import signing
from mlflow_sb3.runs import state_dir
from mlflow_sb3.tracking import file_trust
from mlflow_sb3.tracking.file_trust import FileTrust
from tests.conftest import Keys

DIGEST = "3f" * 32


def test_only_this_user_can_read_the_key_of_the_machine() -> None:
    key = file_trust.get_machine_key()

    assert key == state_dir.get_state_dir() / "machine-key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_processes_that_start_at_once_share_one_key() -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: file_trust.get_machine_key().read_bytes(), range(8)))

    assert len(set(keys)) == 1


def test_a_machine_trusts_only_the_files_that_it_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature = FileTrust().sign(DIGEST)

    assert FileTrust().is_trusted(DIGEST, signature)
    assert not FileTrust().is_trusted("9a" * 32, signature)
    assert not FileTrust().is_trusted(DIGEST, "")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another machine"))
    assert not FileTrust().is_trusted(DIGEST, signature)
    assert FileTrust(allow_pickle=True).is_trusted(DIGEST, signature)


def test_the_holder_of_either_part_of_a_key_trusts_its_signatures(keys: Keys) -> None:
    signature = FileTrust(signing_key=str(keys.private)).sign(DIGEST)

    assert FileTrust(signing_key=str(keys.private)).is_trusted(DIGEST, signature)
    assert FileTrust(public_key=str(keys.public)).is_trusted(DIGEST, signature)
    assert not FileTrust().is_trusted(DIGEST, signature)


def test_the_signature_of_a_model_is_not_valid_for_a_file(keys: Keys) -> None:
    signature = signing.sign_digest(DIGEST, keys.private)

    assert not FileTrust(public_key=str(keys.public)).is_trusted(DIGEST, signature)


def test_no_file_is_trusted_if_unpickling_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    signature = FileTrust().sign(DIGEST)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

    assert not FileTrust(allow_pickle=True).is_trusted(DIGEST, signature)


def test_a_wrong_key_is_rejected_before_any_work(keys: Keys) -> None:
    with pytest.raises(MlflowException, match=r"Private key .* is a public key"):
        FileTrust(signing_key=str(keys.public)).check_keys()
