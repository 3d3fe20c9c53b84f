"""Files that are whole or not there: written beside their name, synced, renamed.

Some bear a seal, which tells when one was cut short on its way to or from somewhere else.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_SEAL = hashlib.sha256().digest_size
_CHUNK = 1 << 20


def write_file(path: Path, content: bytes) -> None:
    """Write a file that is whole after any kill: it has the old content or the new one."""
    draft = path.with_name(f"{path.name}.draft")
    write_draft(draft, lambda file: file.write(content))
    publish(draft, path)


def publish(draft: Path, path: Path) -> None:
    """Sync a finished draft in the same folder, and give it its name."""
    _sync(draft)
    draft.replace(path)
    _sync(path.parent)


def write_draft(draft: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Write a file that is to be published; when filling it fails, nothing is left of it."""
    draft.parent.mkdir(parents=True, exist_ok=True)
    try:
        with draft.open("wb") as file:
            fill(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def seal(draft: Path) -> str:
    """Put SHA-256 of the content behind it, as 32 bytes; returns it as 64 hexadecimal digits."""
    found = _digest(draft, draft.stat().st_size)
    with draft.open("ab") as file:
        file.write(found)
    return found.hex()


def is_sealed(path: Path) -> bool:
    """Whether a file is there, and as it was sealed."""
    return seal_of(path) is not None


def seal_of(path: Path) -> str | None:
    """The digest of a sealed file, as 64 hexadecimal digits; None when the file is not there, or not as it was sealed."""
    try:
        size = path.stat().st_size - _SEAL
        with path.open("rb") as file:
            file.seek(max(size, 0))
            found = file.read()
    except OSError:
        return None
    return found.hex() if size >= 0 and found == _digest(path, size) else None


def _digest(path: Path, size: int) -> bytes:
    """SHA-256 of the first bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size > 0 and (chunk := file.read(min(size, _CHUNK))):
            digest.update(chunk)
            size -= len(chunk)
    return digest.digest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
