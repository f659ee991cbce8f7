"""Takes the one .safetensors file out of a tar that is still arriving.

The tar is read as a stream of bytes and nothing is extracted by name: the names in it are only
looked at. Entries that have no place in a LoRA's tar (links, devices, paths that climb out) make
the whole tar refused. The reader can start in the middle of the file it takes, for a resume.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from ..errors import BadFileError, RefusedError

__all__ = ["Member", "TarReader"]

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


class TarReader:
    """Feed it the tar's bytes in order; it passes on those of the .safetensors file.

    Attributes:
        position: How many bytes of the tar have been read.
        member: The file that is taken, once it was met.
    """

    def __init__(
        self,
        *,
        label: str,
        max_bytes: int,
        begin: Callable[[Member], None],
        write: Callable[[memoryview], None],
    ) -> None:
        self.position = 0
        self.member: Member | None = None
        self._label = label
        self._max_bytes = max_bytes
        self._begin = begin
        self._write = write
        self._entries = 0
        self._described = 0  # bytes of descriptions so far
        self._buffer = bytearray()
        self._left = 0  # bytes of the present entry that are still to come
        self._padding = 0  # bytes that fill its last block
        self._keep: bytes | None = None  # the type of the entry whose bytes are gathered
        self._taking = False
        self._ended = False
        self._next: dict[str, str] = {}  # what extension entries say about the next one

    def resume(self, member: Member, have: int) -> None:
        """Continue inside the file, after ``have`` of its bytes."""
        self.member = member
        self.position = member.start + have
        self._left = member.size - have
        self._padding = -member.size % BLOCK
        self._taking = True

    def feed(self, chunk: bytes) -> None:
        """Read the next bytes of the tar.

        Raises:
            BadFileError: this is no sound tar, or it holds several .safetensors files.
            RefusedError: it holds something unsafe or too large.
        """
        view = memoryview(chunk)
        while view and not self._ended:
            if self._left:
                used = min(self._left, len(view))
                self._content(view[:used])
                self._left -= used
            elif self._padding:
                used = min(self._padding, len(view))
                self._padding -= used
            else:
                used = min(BLOCK - len(self._buffer), len(view))
                self._buffer += view[:used]
            self.position += used
            view = view[used:]
            self._advance()
        self.position += len(view)

    def finish(self) -> Member:
        """The tar is over: the file must have been in it, whole.

        Raises:
            BadFileError: it was not.
        """
        if not self._ended and (self._left or self._buffer):
            self._bad("it ends in the middle of a file")
        if self.member is None:
            self._bad("there is no .safetensors file in it")
        return self.member

    def _content(self, view: memoryview) -> None:
        if self._taking:
            self._write(view)
        elif self._keep is not None:
            self._buffer += view

    def _advance(self) -> None:
        """Act on what is complete now."""
        if self._left:
            return
        self._taking = False
        if self._keep is not None:
            kind, self._keep = self._keep, None
            content = bytes(self._buffer)
            self._buffer.clear()
            self._extension(kind, content)
        elif not self._padding and len(self._buffer) == BLOCK:
            block = bytes(self._buffer)
            self._buffer.clear()
            self._header(block)

    def _header(self, block: bytes) -> None:
        if not any(block):
            self._ended = True
            return
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            self._refuse(f"it holds more than {MAX_ENTRIES} entries")
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            self._bad("it is no tar, or a damaged one")
        if info.type in {_LONG_NAME, _LONG_LINK, _PAX_GLOBAL, *_PAX}:
            self._gather(info)
        else:
            self._entry(info)

    def _gather(self, info: tarfile.TarInfo) -> None:
        self._described += max(info.size, 0)
        if not 0 <= info.size <= MAX_EXTENSION or self._described > MAX_EXTENSIONS:
            self._refuse("an entry's description is too large")
        self._keep = info.type
        self._expect(info.size)
        if not info.size:
            self._advance()

    def _extension(self, kind: bytes, content: bytes) -> None:
        if kind == _LONG_NAME:
            self._next["path"] = content.rstrip(b"\0").decode("utf-8", "surrogateescape")
        elif kind in _PAX:
            self._next.update(self._pax(content))

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

    def _entry(self, info: tarfile.TarInfo) -> None:
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
            return
        if info.type not in _FILES or any(key.startswith("GNU.sparse") for key in described):
            self._refuse(f"{shown} is not an ordinary file")
        if size < 0:
            self._bad(f"{shown} has no sound size")
        if _is_weights(name):
            self._take(name, size)
        self._expect(size)

    def _take(self, name: str, size: int) -> None:
        if self.member is not None:
            self._bad(
                f"it holds several .safetensors files ({self.member.name[:80]!r}, {name[:80]!r})"
            )
        if size > self._max_bytes:
            self._refuse(f"its file claims {size} bytes and the limit is {self._max_bytes}")
        self.member = Member(name, self.position, size)
        self._begin(self.member)
        self._taking = True

    def _expect(self, size: int) -> None:
        self._left = size
        self._padding = -size % BLOCK

    def _bad(self, why: str) -> NoReturn:
        raise BadFileError(
            f"{self._label}: the tar cannot be used: {why}. It must hold one .safetensors file."
        )

    def _refuse(self, why: str) -> NoReturn:
        raise RefusedError(f"{self._label}: the tar is refused: {why}.")


def _is_weights(name: str) -> bool:
    """Files that macOS adds (``._name``) only look like weights."""
    base = name.rsplit("/", 1)[-1].lower()
    return base.endswith(".safetensors") and not base.startswith("._")
