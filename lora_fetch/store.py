"""Where fetched LoRAs live: a folder among ComfyUI's LoRAs, with an index and a limit.

Files have readable names of our own making that end in a piece of their hash. The least recently
used go when the store grows over its limit; pinned ones stay.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from ..errors import NoRoomError, NotFoundError, StoreError
from ..files.disk import disk_errors, hash_of, write_whole
from ..files.lock import locked, try_lock
from ..files.part import Part
from ..files.settings import Settings
from .index import Document, Entry, Index, Known
from .services.local import LocalFile
from .source import Source

__all__ = ["CONFIG", "FOLDER", "Store", "mark_of"]

FOLDER = "flux-hotswap"
CONFIG = ".adapter_config.json"
"""What the settings of a file are called that PEFT keeps beside it, in place of its ending."""

TOUCH_EVERY = 60.0
STALE_PART = 24 * 3600.0
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:[.-].*)?", re.IGNORECASE)

logger = logging.getLogger(__name__)


class Store:
    """The folder and its index.

    Attributes:
        root: The folder; ComfyUI lists its files as ``flux-hotswap/<name>``.
    """

    def __init__(
        self, loras: Path, settings: Settings, *, folders: Sequence[Path] | None = None
    ) -> None:
        """Open a store; nothing is written before something is fetched.

        Args:
            loras: The loras folder that gets our subfolder.
            settings: Limits and times.
            folders: All folders in which a local file name is looked for; ``loras`` if not given.
        """
        self.root = loras / FOLDER
        self.settings = settings
        self._folders = list(folders) if folders is not None else [loras]
        self._work = self.root / ".work"
        self._index = Index(
            self.root / "index.json",
            lock=self._work / "index.lock",
            by=self._work / f"index-{settings.apart}.new",
        )

    def entries(self) -> dict[str, Entry]:
        """All entries by their key."""
        return dict(self._index.read().loras)

    def path(self, entry: Entry) -> Path:
        """The file of an entry."""
        return self.root / entry.file

    def find(self, source: Source) -> Entry | None:
        """The entry of a source whose file is there and untouched."""
        entry = self._index.read().loras.get(key_of(source))
        if entry is None:
            return None
        state = self.check(entry, thorough=False)
        if state != "ok":
            logger.warning("%s: its file %s is %s.", entry.source, entry.file, state)
            return None
        return entry

    def check(self, entry: Entry, *, thorough: bool) -> str:
        """Compare an entry with its file: ``ok``, ``missing`` or ``damaged``.

        Args:
            entry: The entry.
            thorough: Read the whole file even if its size and time are as they were.
        """
        path = self.path(entry)
        try:
            stat = path.stat()
        except FileNotFoundError:
            return "missing"
        if stat.st_size != entry.size:
            return "damaged"
        if not thorough and stat.st_mtime_ns == entry.mtime_ns:
            return "ok"
        sound = hash_of(path) == entry.sha256
        with self._if_possible(), self._index.change() as document:
            for other in document.loras.values():
                if other.file == entry.file:
                    other.mtime_ns = stat.st_mtime_ns if sound else 0
        return "ok" if sound else "damaged"

    def lock(
        self, source: Source, *, cancelled: Callable[[], bool]
    ) -> AbstractContextManager[None]:
        """Hold a source, so that it is fetched once however many ask for it."""
        with disk_errors(self._work):
            self._work.mkdir(parents=True, exist_ok=True)
        return locked(
            self._work / f"{key_of(source)}.lock", sleep=self.settings.sleep, cancelled=cancelled
        )

    def part(self, source: Source) -> Part:
        """Where the bytes of a source go until they are whole."""
        return Part(self._work / f"{key_of(source)}-{self.settings.apart}")

    def add(self, source: Source, part: Path, entry: Entry, config: str | None = None) -> Entry:
        """Move a checked file to its place and write it into the index.

        Args:
            source: Where it came from.
            part: The file, whole and checked.
            entry: What is known about it; its ``file`` and times are filled in here.
            config: The settings that are kept beside it.
        """
        entry = replace(entry, config=mark_of(config))
        with self._index.change() as document, disk_errors(self.root):
            twin = self._twin(document, entry)
            file = twin or _free_name(document, source, entry)
            self._put_beside(file, config)  # first: without it the file means something else
            if twin is not None:
                part.unlink()
            else:
                part.replace(self.root / file)
            return self._enter(document, source, replace(entry, file=file))

    def share(self, source: Source, entry: Entry, config: str | None = None) -> Entry | None:
        """Enter a source whose very bytes are here from another source; None if they are not.

        Files that differ in the settings beside them are not the same, whatever their bytes.
        """
        entry = replace(entry, config=mark_of(config))
        with self._index.change() as document, disk_errors(self.root):
            file = self._twin(document, entry)
            if file is None:
                return None
            self._put_beside(file, config)
            size = (self.root / file).stat().st_size
            return self._enter(document, source, replace(entry, file=file, size=size))

    def touch(self, source: Source, entry: Entry) -> bool:
        """Note, not more often than matters, that an entry was used; whether it is still there."""
        now = self.settings.clock()
        if not 0 <= now - entry.used < TOUCH_EVERY:
            with self._if_possible():
                return self.update(source, used=now) is not None
        return True

    def update(self, source: Source, **values: object) -> Entry | None:
        """Change some values of an entry, if it is still there, and give it back."""
        with self._index.change() as document:
            entry = document.loras.get(key_of(source))
            for name, value in values.items() if entry is not None else ():
                setattr(entry, name, value)
        return entry

    def make_room(self, needed: int, here: int = 0) -> None:
        """Evict until so many bytes fit below the store's limit and on the disk.

        Args:
            needed: Bytes that will be written.
            here: Bytes of the same file that are on the disk already, and in no entry yet.

        Raises:
            NoRoomError: the disk has no room for them, whatever is evicted.
        """
        settings = self.settings
        if self._free() < needed + settings.reserve_bytes:
            self._stale_parts()
        for entry in self._evictable(self._index.read()):
            fits = self.size() + here + needed <= settings.cache_bytes
            if fits and self._free() >= needed + settings.reserve_bytes:
                break
            if self._recent(entry):
                break
            logger.info("Evicting %s (%d bytes) to make room.", entry.file, entry.size)
            self._forget(entry)
        settings.check_room(self.root, needed)

    def prune(self, *, keep_bytes: int, unused_since: float | None = None) -> list[str]:
        """Remove what was not used since then, and the least recently used above a size.

        Returns:
            The names of the files that were removed.
        """
        removed: list[str] = []
        for entry in self._evictable(self._index.read()):
            old = unused_since is not None and entry.used < unused_since
            if (old or self.size() > keep_bytes) and self._forget(entry):
                removed.append(entry.file)
        return removed + self._stale_parts()

    def size(self) -> int:
        """Bytes of all files in the index."""
        return sum({e.file: e.size for e in self._index.read().loras.values()}.values())

    def local(self, source: LocalFile) -> Path:
        """The file of that name in one of the loras folders.

        Raises:
            NotFoundError: there is none; the message names what is close.
        """
        for folder in self._folders:
            path = folder / source.name
            with suppress(OSError):  # a name that is too long for any file
                if path.is_file():
                    return path
        names = [
            path.relative_to(folder).as_posix()
            for folder in self._folders
            for path in folder.rglob("*.safetensors")
        ]
        close = difflib.get_close_matches(source.name, names, n=3, cutoff=0.5)
        raise NotFoundError(
            f"{source.name}: there is no such file in your loras folders. Write "
            "hf:owner/name/file.safetensors for one of Hugging Face"
            + (". Did you mean one of these?" if close else ""),
            choices=[LocalFile(name).canonical() for name in close],
        )

    def local_hash(self, path: Path) -> str:
        """The SHA-256 of a user's file, remembered until the file changes."""
        stat = path.stat()
        known = self._index.read().local.get(str(path))
        if known and (known.size, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return known.sha256
        digest = hash_of(path)
        with self._if_possible():
            with disk_errors(self._work):
                self._work.mkdir(parents=True, exist_ok=True)
            with self._index.change() as document:
                document.local[str(path)] = Known(stat.st_size, stat.st_mtime_ns, digest)
        return digest

    def _twin(self, document: Document, like: Entry) -> str | None:
        """The file that has the bytes of an entry already, and its settings."""
        for entry in document.loras.values():
            path = self.path(entry)
            alike = _bytes_of(entry) == _bytes_of(like) and path.is_file()
            if alike and hash_of(path) == like.sha256:
                return entry.file
        return None

    def _put_beside(self, file: str, config: str | None) -> None:
        """Keep the settings of a file beside it; the index is locked."""
        if config is not None:
            fresh = self._work / f"config-{self.settings.apart}.new"
            write_whole((self.root / file).with_suffix(CONFIG), config, by=fresh)

    def _forget(self, chosen: Entry) -> bool:
        """Evict a file and all entries of it; tell whether it is gone.

        One that somebody has used or pinned since it was chosen stays.
        """
        with self._index.change() as document:
            gone = chosen in self._evictable(document) and self._unlink(chosen.file)
            if gone:
                document.loras = {k: e for k, e in document.loras.items() if e.file != chosen.file}
        return gone

    def _enter(self, document: Document, source: Source, entry: Entry) -> Entry:
        """Write an entry whose file is in place; the file that it had before may go."""
        now, old = self.settings.clock(), document.loras.get(key_of(source))
        fresh = replace(
            entry,
            mtime_ns=(self.root / entry.file).stat().st_mtime_ns,
            fetched=now,
            used=now,
            pinned=old.pinned if old else entry.pinned,
        )
        document.loras[key_of(source)] = fresh
        if old is not None and old.file not in {e.file for e in document.loras.values()}:
            held = self.path(old).is_file() and self._recent(old)
            if held or not self._unlink(old.file):  # somebody may be reading it: it goes later
                document.loras[old.file] = replace(old, pinned=False)
        return fresh

    def _recent(self, entry: Entry) -> bool:
        """Whether somebody who was given the file may not have opened it yet."""
        return abs(self.settings.clock() - entry.used) < self.settings.keep_recent

    def _evictable(self, document: Document) -> list[Entry]:
        """Of each file that may go the entry last used, the least recently used first."""
        entries = sorted(document.loras.values(), key=lambda e: e.used)
        pinned = {e.file for e in entries if e.pinned}
        last = {e.file: e for e in entries if e.file not in pinned}
        return sorted(last.values(), key=lambda e: e.used)

    @contextmanager
    def _if_possible(self) -> Generator[None, None, None]:
        """Remember something, and go on without it where the folder cannot be written.

        A LoRA on a disk that is full or only read is as good as any.
        """
        try:
            yield
        except (StoreError, NoRoomError) as error:
            logger.warning("The index of the LoRAs stays as it was. %s", error)

    def _free(self) -> int:
        return self.settings.free_space(self.root)

    def _unlink(self, file: str) -> bool:
        try:
            (self.root / file).unlink(missing_ok=True)
            (self.root / file).with_suffix(CONFIG).unlink(missing_ok=True)
        except PermissionError:  # Windows, while a run has it open
            logger.warning("%s is in use and stays for now.", file)
            return False
        return True

    def _stale_parts(self) -> list[str]:
        """Remove what broken fetches left long ago, as far as we may; the names of the files."""
        removed: list[str] = []
        for path in sorted(self._work.glob("*.part")):
            key = path.stem.partition("-")[0]
            with suppress(OSError, StoreError), try_lock(path.with_name(f"{key}.lock")) as held:
                # Far in the future is stale too: a clock was wrong then.
                if held and abs(self.settings.clock() - path.stat().st_mtime) > STALE_PART:
                    Part(path.with_suffix("")).remove()
                    removed.append(path.name)
        return removed


def mark_of(config: str | None) -> str:
    """What tells the settings of a file from others; empty for none."""
    return "" if config is None else hashlib.sha256(config.encode()).hexdigest()


def _bytes_of(entry: Entry) -> tuple[str, str]:
    return entry.sha256, entry.config


def _free_name(document: Document, source: Source, entry: Entry) -> str:
    """A name that no other bytes have; who makes a file can choose the start of its hash."""
    same = _bytes_of(entry)
    taken = {e.file.lower() for e in document.loras.values() if _bytes_of(e) != same}
    short, long = (
        file_name(source, entry.name, "-".join(mark[:digits] for mark in same if mark))
        for digits in (8, 32)
    )
    return long if short.lower() in taken else short


def key_of(source: Source) -> str:
    """The name of a source in the index: a hash, so that no secret of an address is in it."""
    return hashlib.sha256(source.canonical().encode()).hexdigest()[:32]


def file_name(source: Source, name: str, mark: str) -> str:
    """A safe, readable file name: where it comes from, its own name if it says more, its mark."""
    stem = re.sub(r"\.(safetensors|tar)$", "", name, flags=re.IGNORECASE)
    plain = stem.lower() in ("", "lora", "trained_model", "pytorch_lora_weights", "flux-lora")
    words = source.label if plain or stem == source.label else f"{source.label}-{stem}"
    words = re.sub(r"[^A-Za-z0-9._-]+", "-", words).strip("-._")[:80].strip("-._") or "lora"
    if _RESERVED.fullmatch(words):
        words = f"lora-{words}"
    return f"{words}-{mark}.safetensors"
