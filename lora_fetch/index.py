"""The store's index: which file came from which source. One JSON document, replaced whole."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import re
import stat
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from ..files.disk import disk_errors, write_whole
from ..files.lock import locked
from ..texts import one_line, trigger_words

__all__ = ["Document", "Entry", "Index", "Known"]

VERSION = 1
MAX_TEXT = 2**14
MAX_KEY = 100
_MOVED = {errno.ENOENT, getattr(errno, "ESTALE", errno.ENOENT)}
_PAUSES = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Seconds until a file that was replaced is looked at again."""
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}\.safetensors")
"""Names as the store makes them."""

logger = logging.getLogger(__name__)


@dataclass
class Entry:
    """One fetched file."""

    source: str
    file: str
    size: int
    sha256: str
    mtime_ns: int
    url: str = ""
    revision: str | None = None
    name: str = ""
    trigger_words: list[str] = field(default_factory=list[str])
    fetched: float = 0.0
    used: float = 0.0
    check_after: float = 0.0
    pinned: bool = False
    config: str = ""
    """The hash of the settings beside it; empty where there are none."""


@dataclass
class Known:
    """The hash of a file that the user put there, as long as it is not touched."""

    size: int
    mtime_ns: int
    sha256: str


@dataclass
class Document:
    """All of the index."""

    loras: dict[str, Entry] = field(default_factory=dict[str, Entry])
    local: dict[str, Known] = field(default_factory=dict[str, Known])


class Index:
    """Reads and changes the document. Reading needs no lock: a replace is never seen half done."""

    def __init__(self, path: Path, *, lock: Path, by: Path) -> None:
        self._path = path
        self._lock = lock
        self._by = by
        self._seen: tuple[tuple[int, int, int] | None, Document] = (None, Document())

    def read(self) -> Document:
        """The present document, from memory while the file is the same; do not change it."""
        with disk_errors(self._path):
            try:
                found = self._path.stat()
            except OSError as error:
                if error.errno not in _MOVED:
                    raise
                return self._load()
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        seen, document = self._seen
        if stamp != seen:
            document = self._load()
            self._seen = (stamp, document)
        return document

    @contextmanager
    def change(self) -> Generator[Document, None, None]:
        """Change the document under the lock; it is written when the block ends well."""
        with locked(self._lock, sleep=time.sleep, cancelled=lambda: False):
            document = self._load()
            yield document
            text = json.dumps({"version": VERSION, **asdict(document)}, indent=1)
            with disk_errors(self._path):
                self._set_aside()
                write_whole(self._path, text, by=self._by)

    def _set_aside(self) -> None:
        """Move a folder that has the index's name, with what is in it, out of the way."""
        if self._path.is_dir():
            aside = self._path.with_suffix(f".broken-{time.time_ns()}.json")
            logger.warning("%s is a folder; it is now %s.", self._path, aside.name)
            self._path.rename(aside)

    def _text(self) -> str | None:
        """Return what is in the file; None where there is none.

        On a network drive, a file that another machine has just replaced can be neither the old one
        nor the new one for a moment. An index taken for missing would be written anew.
        """
        pauses = iter(_PAUSES)
        while True:
            try:
                if not stat.S_ISREG(self._path.stat().st_mode):
                    return None
                return self._path.read_text(encoding="utf-8", errors="replace")
            except OSError as error:
                pause = next(pauses, None)
                if error.errno not in _MOVED or pause is None:
                    raise
                if error.errno == errno.ENOENT and not self._listed():
                    return None
            time.sleep(pause)

    def _listed(self) -> bool:
        try:
            return self._path in self._path.parent.iterdir()
        except FileNotFoundError:
            return False

    def _load(self) -> Document:
        """Read what is sound; a broken index costs new fetches, never a failure."""
        with disk_errors(self._path):
            text = self._text()
        if text is None:
            return Document()
        try:
            raw: object = json.loads(text)
        except (ValueError, RecursionError):
            aside = self._path.with_suffix(".broken.json")
            logger.warning("%s is damaged; a copy is kept as %s.", self._path, aside.name)
            with contextlib.suppress(OSError):  # a folder that can only be read
                aside.write_text(text, encoding="utf-8")
            return Document()
        table = cast("dict[str, Any]", raw) if isinstance(raw, dict) else {}
        loras = _values(table.get("loras"), Entry)
        return Document(
            {key: entry for key, entry in loras.items() if _sound(entry)},
            _values(table.get("local"), Known),
        )


def _values(raw: object, kind: Callable[..., Any]) -> dict[str, Any]:
    """The entries that have the fields they need, with the types they need."""
    table = cast("dict[str, Any]", raw) if isinstance(raw, dict) else {}
    found: dict[str, Any] = {}
    for key, value in table.items():
        entry = _value(value, kind)
        if entry is None:
            logger.warning(
                "The index holds an entry that cannot be read; it is left out: %s",
                one_line(key, MAX_KEY),
            )
        else:
            found[key] = entry
    return found


def _value(raw: object, kind: Callable[..., Any]) -> Any:
    names = {f.name: f for f in fields(cast("Any", kind))}
    table = cast("dict[str, Any]", raw) if isinstance(raw, dict) else {}
    try:
        entry = kind(**{name: value for name, value in table.items() if name in names})
    except TypeError:
        return None
    sound = all(_KINDS[str(f.type)](getattr(entry, name)) for name, f in names.items())
    return entry if sound else None


def _number(value: object) -> bool:
    # What is no number, or past all numbers that are ours, compares as false.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63


_KINDS: Mapping[str, Callable[[object], bool]] = {
    "str": lambda value: isinstance(value, str),
    "str | None": lambda value: isinstance(value, str | None),
    "int": lambda value: isinstance(value, int) and _number(value),
    "float": _number,
    "bool": lambda value: isinstance(value, bool),
    "list[str]": lambda value: isinstance(value, list),
}


def _sound(entry: Entry) -> bool:
    """An index that was tampered with must not lead out of the folder, nor fill a log."""
    entry.source, entry.url = one_line(entry.source, MAX_TEXT), one_line(entry.url, MAX_TEXT)
    entry.name = one_line(entry.name, MAX_TEXT)
    entry.trigger_words = trigger_words(entry.trigger_words)
    return _FILE.fullmatch(entry.file) is not None and entry.size >= 0
