"""Write files atomically, and append a digest that shows later whether a file is complete."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_DIGEST_SIZE = hashlib.sha256().digest_size
_CHUNK_SIZE = 1 << 20


def write_file(path: Path, content: bytes) -> None:
    """Write a file atomically: after a crash it has either the old or the new content."""
    draft = path.with_name(f"{path.name}.draft")
    write_draft(draft, lambda file: file.write(content))
    publish_draft(draft, path)


def write_draft(draft: Path, write: Callable[[BinaryIO], object]) -> None:
    """Create a file and let ``write`` fill it. If ``write`` fails, delete the file."""
    draft.parent.mkdir(parents=True, exist_ok=True)
    try:
        with draft.open("wb") as file:
            write(file)
    except BaseException:  # also after KeyboardInterrupt; the exception is raised again
        draft.unlink(missing_ok=True)
        raise


def publish_draft(draft: Path, path: Path) -> None:
    """Sync a complete draft to the disk and rename it to a path in the same folder."""
    _sync(draft)
    draft.replace(path)
    _sync(path.parent)


def append_digest(draft: Path) -> str:
    """Append the SHA-256 digest of a file to the file itself.

    Returns:
        The digest as 64 hexadecimal digits. In the file it takes 32 bytes.
    """
    digest = _compute_digest(draft, draft.stat().st_size)
    with draft.open("ab") as file:
        file.write(digest)
    return digest.hex()


def has_valid_digest(path: Path) -> bool:
    """Return whether a file exists and its content matches the digest at its end."""
    return read_valid_digest(path) is not None


def read_valid_digest(path: Path) -> str | None:
    """Return the digest at the end of a file if the content matches it.

    Returns:
        64 hexadecimal digits, or None if the file is missing, unreadable, truncated or changed.
    """
    try:
        size = path.stat().st_size - _DIGEST_SIZE
        with path.open("rb") as file:
            file.seek(max(size, 0))
            stored = file.read()
    except OSError:  # a file that cannot be read is as useless as a missing one
        return None
    is_valid = size >= 0 and stored == _compute_digest(path, size)
    return stored.hex() if is_valid else None


def _compute_digest(path: Path, size: int) -> bytes:
    """Return the SHA-256 digest of the first ``size`` bytes of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size > 0 and (chunk := file.read(min(size, _CHUNK_SIZE))):
            digest.update(chunk)
            size -= len(chunk)
    return digest.digest()


def _sync(path: Path) -> None:
    """Write a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
