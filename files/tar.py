"""Finds the one .safetensors file in a tar, and makes the tar that file.

Nothing is extracted by name: the names in it are only looked at. Entries that have no place in a
LoRA's tar (links, devices, paths that climb out) make the whole tar refused.
"""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import os
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn, cast

from ..errors import BadFileError, RefusedError
from .disk import BLOCK as CHUNK
from .disk import FLUSH, Behind, disk_errors

__all__ = ["Member", "check_start", "find_member", "unpack"]

BLOCK = 512
MAX_ENTRIES = 10_000
MAX_EXTENSION = 2**20
MAX_EXTENSIONS = 4 * 2**20
"""Bytes of all descriptions of entries together."""

MAX_RECORDS = 1_000
"""Of one description; tools write about ten."""

MAX_NAME = 4096
_FILES = {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE}
_LONG_NAME, _LONG_LINK = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
_PAX, _PAX_GLOBAL = {tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE}, tarfile.XGLTYPE
_PAX_RECORD = re.compile(rb"(\d{1,20}) ([^=\n]+)=")


@dataclass(frozen=True)
class Member:
    """The file that is taken: its name, where its bytes start in the tar, how many there are."""

    name: str
    start: int
    size: int


def unpack(path: Path, *, label: str, max_bytes: int) -> tuple[int, str]:
    """Leave of a tar the file in it, under the tar's own name; no more room is needed for that.

    A process that is killed on the way leaves something that is neither: the caller must have
    forgotten before that the tar was whole.

    Args:
        path: The tar.
        label: What it is called in messages.
        max_bytes: A larger file in it is refused.

    Returns:
        The size of the file and its SHA-256.

    Raises:
        BadFileError: this is no sound tar, or it does not hold one .safetensors file.
        RefusedError: it holds something unsafe or too large.
        StoreError: the disk does not let us.
    """
    with disk_errors(path), path.open("r+b", buffering=0) as file:
        member = find_member(file, label=label, max_bytes=max_bytes)
        digest = _move(file, member)
        file.truncate(member.size)
        os.fsync(file.fileno())
    return member.size, digest


def _move(file: BinaryIO, member: Member) -> str:
    """Move a file to the start of its tar, and let the disk keep up; its SHA-256."""
    digest, hashing, flushing = hashlib.sha256(), Behind("tar-hash"), Behind("tar-flush")
    raw = cast("io.RawIOBase", file)
    buffers = itertools.cycle((bytearray(CHUNK), bytearray(CHUNK)))  # one is still being hashed
    done = flushed = 0
    try:
        while done < member.size:
            # What is read lies behind what is written: an entry has at least its own head before.
            file.seek(member.start + done)
            got = raw.readinto(memoryview(buffer := next(buffers))[: member.size - done])
            if not got:
                raise OSError(errno.EIO, "it became shorter while it was read")
            piece = memoryview(buffer)[:got]
            hashing.start(digest.update, piece)
            file.seek(done)
            while piece:
                piece = piece[file.write(piece) :]
            done += got
            if done - flushed >= FLUSH and flushing.idle():
                flushed = done
                flushing.start(os.fsync, file.fileno())
        hashing.wait()
        flushing.wait()
    finally:
        hashing.close()
        flushing.close()
    return digest.hexdigest()


def find_member(file: BinaryIO, *, label: str, max_bytes: int) -> Member:
    """Look through a tar for the .safetensors file in it; only the heads of entries are read.

    Raises:
        BadFileError: this is no sound tar, or it does not hold one such file.
        RefusedError: it holds something unsafe or too large.
    """
    return _Look(file, label, max_bytes).run()


def check_start(block: bytes, *, label: str) -> None:
    """Look at the first block of what should be a tar, before all the rest of it is fetched.

    Raises:
        BadFileError: it is none.
    """
    if any(block):
        _info(block, label)


def _info(block: bytes, label: str) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        _bad(label, "it is no tar, or a damaged one")


class _Look:
    """One look through a tar."""

    def __init__(self, file: BinaryIO, label: str, max_bytes: int) -> None:
        self._file = file
        self._label = label
        self._max_bytes = max_bytes
        self._length = file.seek(0, os.SEEK_END)
        self._entries = 0
        self._described = 0  # bytes of descriptions so far
        self._member: Member | None = None
        self._next: dict[str, str] = {}  # what descriptions say about the next entry

    def run(self) -> Member:
        """Return the file that was met."""
        at = self._file.seek(0)
        while at < self._length:
            block = self._read(at, BLOCK)
            if not any(block):
                break
            at = self._header(block, at + BLOCK)
        if self._member is None:
            self._bad("there is no .safetensors file in it")
        return self._member

    def _read(self, at: int, size: int) -> bytes:
        self._file.seek(at)
        data = self._file.read(size)
        if len(data) < size:
            self._bad("it ends in the middle of a file")
        return data

    def _header(self, block: bytes, at: int) -> int:
        """Act on the head of an entry whose content starts there; where the next one is."""
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            self._refuse(f"it holds more than {MAX_ENTRIES} entries")
        info = _info(block, self._label)
        if info.type in {_LONG_NAME, _LONG_LINK, _PAX_GLOBAL, *_PAX}:
            size = self._describe(info, at)
        else:
            size = self._entry(info, at)
        if at + size > self._length:
            self._bad("it ends in the middle of a file")
        return at + size + -size % BLOCK

    def _describe(self, info: tarfile.TarInfo, at: int) -> int:
        """Read what an entry says about the next one; its size."""
        self._described += max(info.size, 0)
        if not 0 <= info.size <= MAX_EXTENSION or self._described > MAX_EXTENSIONS:
            self._refuse("an entry's description is too large")
        content = self._read(at, info.size)
        if info.type == _LONG_NAME:
            self._next["path"] = content.rstrip(b"\0").decode("utf-8", "surrogateescape")
        elif info.type in _PAX:
            self._next.update(self._pax(content))
        return info.size

    def _pax(self, content: bytes) -> dict[str, str]:
        found: dict[str, str] = {}
        at = records = 0
        while at < len(content):
            match = _PAX_RECORD.match(content, at)
            end = at + (int(match[1]) if match else 0)
            if match is None or not match.end() < end <= len(content):
                self._bad("an entry's description is damaged")
            value = content[match.end() : end - 1]
            found[match[2].decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
            at, records = end, records + 1
            if records > MAX_RECORDS:
                self._refuse(f"an entry's description has more than {MAX_RECORDS} records")
        return found

    def _entry(self, info: tarfile.TarInfo, at: int) -> int:
        """Look at an entry; the size of its content."""
        described, self._next = self._next, {}
        name = described.get("path", info.name)
        shown = repr(name[:80])
        size = info.size
        if "size" in described:
            text = described["size"]
            size = int(text) if re.fullmatch(r"[0-9]{1,18}", text) else -1
        if len(name) > MAX_NAME:
            self._refuse(f"the path {shown}... has {len(name)} letters")
        if name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or "\0" in name:
            self._refuse(f"the path {shown} leads out of it")
        if info.issym() or info.islnk():
            self._refuse(f"{shown} is a link")
        if info.isdir():
            return 0
        if info.type not in _FILES or any(key.startswith("GNU.sparse") for key in described):
            self._refuse(f"{shown} is not an ordinary file")
        if size < 0:
            self._bad(f"{shown} has no sound size")
        if _is_weights(name):
            self._take(name, at, size)
        return size

    def _take(self, name: str, at: int, size: int) -> None:
        if self._member is not None:
            self._bad(
                f"it holds several .safetensors files ({self._member.name[:80]!r}, {name[:80]!r})"
            )
        if size > self._max_bytes:
            self._refuse(f"its file claims {size} bytes and the limit is {self._max_bytes}")
        self._member = Member(name, at, size)

    def _bad(self, why: str) -> NoReturn:
        _bad(self._label, why)

    def _refuse(self, why: str) -> NoReturn:
        raise RefusedError(
            f"{self._label}: the tar is refused: {why}. Take the .safetensors file out of it by "
            "hand and put it into your loras folder."
        )


def _bad(label: str, why: str) -> NoReturn:
    raise BadFileError(
        f"{label}: the tar cannot be used: {why}. Give one that holds one .safetensors file."
    )


def _is_weights(name: str) -> bool:
    """Files that macOS adds (``._name``) only look like weights."""
    base = name.rsplit("/", 1)[-1].lower()
    return base.endswith(".safetensors") and not base.startswith("._")
