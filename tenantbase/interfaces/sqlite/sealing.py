"""The seal at the end of a backup: its length and a checksum of all its bytes.

It follows the last page, where SQLite does not look: the size in the file's header says where the
database ends. SQLite's own integrity check cannot replace it: a value with a flipped bit is as good
as any other value. The first write to the copy removes the seal.
"""

from __future__ import annotations

import hashlib
import os
from typing import IO, BinaryIO, Final

from tenantbase.errors import CannotOpen
from tenantbase.interfaces.sqlite.pacing import Pace

_MAGIC: Final = b"tenantbase copy\n"
_LENGTH_BYTES: Final = 8
_DIGEST_BYTES: Final = 40
SEAL_BYTES: Final = len(_MAGIC) + _LENGTH_BYTES + _DIGEST_BYTES
_CHUNK_BYTES: Final = 1 << 20


def seal(fd: int, pace: Pace) -> None:
    """Append the seal to a file that is complete.

    Args:
        fd: open for reading and writing.
        pace: makes pauses while the file is read.

    Raises:
        OSError: it cannot be read or written.
    """
    digest, at = _digest(), 0
    while chunk := os.pread(fd, _CHUNK_BYTES, at):
        digest.update(chunk)
        at += len(chunk)
        pace.rest()
    rest = memoryview(_sealed(at, digest))
    while rest:
        written = os.pwrite(fd, rest, at)
        rest, at = rest[written:], at + written


def copy_unsealed(source: BinaryIO, name: str, target: IO[bytes], *, required: bool = True) -> bool:
    """Copy a backup without its seal, checking that against the bytes that were copied.

    Args:
        name: the source's name, for messages.
        required: False: a file that does not end with a seal is copied whole.

    Returns:
        Whether there was a seal.

    Raises:
        CannotOpen: the seal is missing or does not fit. What was copied is worth nothing.
        OSError: reading or writing failed.
    """
    digest, length, held = _digest(), 0, b""
    while chunk := source.read(_CHUNK_BYTES):
        held += chunk
        body, held = held[:-SEAL_BYTES], held[-SEAL_BYTES:]
        digest.update(body)
        target.write(body)
        length += len(body)
    if held == _sealed(length, digest):
        return True
    if not held:
        raise CannotOpen(f"{name} is empty")
    if held.startswith(_MAGIC) or length < SEAL_BYTES:
        raise CannotOpen(f"{name} is damaged: its checksum does not fit its contents")
    if required:
        raise CannotOpen(
            f"{name} is cut short or damaged, has been written to, or was not made by tenantbase"
            " backup: it does not end with a checksum (--without-checksum accepts that)"
        )
    target.write(held)
    return False


def _digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=_DIGEST_BYTES)


def _sealed(length: int, digest: hashlib.blake2b) -> bytes:
    return _MAGIC + length.to_bytes(_LENGTH_BYTES, "big") + digest.digest()
