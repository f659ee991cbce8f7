"""A file that is still arriving: its bytes, its hash so far, and a note of what it belongs to.

The bytes are in ``<key>.part`` and the note in ``<key>.json`` beside it, so that another process
can go on where a killed one stopped. Only the holder of the key's lock touches them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

from ..errors import BadFileError
from .disk import BLOCK, FLUSH, Behind, disk_errors, write_whole
from .header import looks_like
from .note import MAX_NOTE, Note, read_note
from .tar import check_start

__all__ = ["FileSink", "Part", "Room"]

Room: TypeAlias = Callable[[int, int], None]
"""(bytes to come, bytes of the same file that are here); raises NoRoomError."""

START = 512
"""Bytes that tell what a file is."""


class Part:
    """The pair of files."""

    def __init__(self, base: Path) -> None:
        self.path = base.with_suffix(".part")
        self._note_path = base.with_suffix(".json")
        self.note = Note()

    def load(self) -> int:
        """Read the note of an earlier try.

        Returns:
            How many bytes of that try can be used; 0 when there is no sound note.

        Raises:
            StoreError: the disk does not let us look.
        """
        with disk_errors(self.path):
            try:
                note, file = self._note_path.stat(), self.path.stat()
            except FileNotFoundError:
                return 0
            whole = stat.S_ISREG(note.st_mode) and stat.S_ISREG(file.st_mode)
            if not whole or note.st_size > MAX_NOTE:
                return 0
            raw = self._note_path.read_bytes()
        found = read_note(raw)
        if found is None:
            return 0
        have = file.st_size if found.have is None else min(file.st_size, found.have)
        self.note = found
        return have

    def save(self) -> None:
        """Write the note, whole or not at all."""
        with disk_errors(self.path):
            fresh = self._note_path.with_suffix(".new")
            write_whole(self._note_path, json.dumps(vars(self.note)), by=fresh)

    def remove(self) -> None:
        """Forget everything that has arrived, and whatever lies in its place."""
        self.note = Note()
        with disk_errors(self.path):
            for path in (self.path, self._note_path, self._note_path.with_suffix(".new")):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)

    def forget_note(self) -> None:
        """The bytes are whole: only the file stays."""
        self._note_path.unlink(missing_ok=True)


class FileSink:
    """Writes the file's bytes in order and hashes them on the way.

    Attributes:
        position: Bytes of the file so far.
    """

    def __init__(self, part: Part, *, label: str, tar: bool = False) -> None:
        """Begin.

        Args:
            part: Where the bytes go.
            label: What the file is called in messages.
            tar: It is a tar: what it starts with is no safetensors header, and nobody asks for its
                hash or keeps it, so neither is it hashed nor waited for on the disk.
        """
        self.part = part
        self.position = 0
        self._tar = tar
        self._label = label
        self._hash = hashlib.sha256()
        self._head = b""
        self._file: BinaryIO | None = None
        self._hashing = Behind("lora-hash")
        self._flushing = Behind("lora-flush")
        self._unflushed = 0

    def resume(self, have: int) -> None:
        """Go on after the bytes that an earlier try left: read them again for the hash."""
        with disk_errors(self.part.path):
            self._open("r+b").truncate(have)
            self.absorb(have)
            self._open_file().seek(have)

    def begin(self) -> None:
        """Make the file if nothing has arrived yet: others may write to it from now on."""
        with disk_errors(self.part.path):
            self._open_file()

    def restart(self) -> None:
        """Throw away what has arrived: it belongs to another state of the file."""
        self.close()
        self.part.remove()
        self.position = 0
        self._hash = hashlib.sha256()
        self._head = b""

    def write(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes.

        Raises:
            BadFileError: the first bytes show that this is something else.
            NoRoomError: the disk is full.
        """
        if len(self._head) < START:
            self._sniff(bytes(chunk[:START]))
        if not self._tar:
            self._hashing.start(self._hash.update, chunk)
        with disk_errors(self.part.path):
            file = self._open_file()
            rest = memoryview(chunk)
            while rest:
                rest = rest[file.write(rest) :]
            self._flush(file, len(chunk))
        self.position += len(chunk)

    def absorb(self, end: int) -> None:
        """Hash bytes that are in the file already, up to this position; the file is open."""
        self._hashing.wait()
        with self.part.path.open("rb") as file:
            file.seek(self.position)
            while self.position < end and (chunk := file.read(min(BLOCK, end - self.position))):
                if len(self._head) < START:
                    self._sniff(chunk[:START])
                if not self._tar:
                    self._hash.update(chunk)
                self.position += len(chunk)
                self._flush(self._open_file(), len(chunk))

    def finish(self) -> tuple[int, str]:
        """Put everything on the disk; the size and the hash of the file, which a tar has not."""
        with disk_errors(self.part.path):
            file = self._open_file()
            self._flushing.wait()
            if not self._tar:
                os.fsync(file.fileno())
        self.close()
        return self.position, "" if self._tar else self._hash.hexdigest()

    def close(self) -> None:
        """Close the file; what was written stays."""
        self._hashing.close()
        self._flushing.close()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _flush(self, file: BinaryIO, size: int) -> None:
        """Let the disk keep up, so that little is left to wait for at the end."""
        self._unflushed += size
        if self._unflushed >= FLUSH and self._flushing.idle() and not self._tar:
            self._unflushed = 0
            self._flushing.start(os.fsync, file.fileno())

    def _sniff(self, start: bytes) -> None:
        self._head += start
        if len(self._head) < START:
            return
        if self._tar:
            check_start(self._head[:START], label=self._label)
            return
        kind = looks_like(self._head)
        if kind is not None:
            raise BadFileError(
                f"{self._label} cannot be used: it is {kind}, not a safetensors file. Check that "
                "the source gives out the file itself, without a login."
            )

    def _open_file(self) -> BinaryIO:
        return self._file if self._file is not None else self._open("wb")

    def _open(self, mode: str) -> BinaryIO:
        self.close()
        self._file = cast("BinaryIO", self.part.path.open(mode, buffering=0))
        return self._file
