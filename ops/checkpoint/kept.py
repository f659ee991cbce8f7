"""The folder of checkpoints that were quantised once: names, checks, what is thrown out. No torch.

Each file has a record beside it, a small JSON file that says what it was made from. The record is
written last, so a file without one is not whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from ...files.disk import write_whole

FORMAT: Final = 2
"""Changes when the same source would be quantised otherwise."""

SUFFIX: Final = ".safetensors"
_LONGEST: Final = 50
"""Most letters of the source's name in that of the cached file: file systems have limits."""

_BLOCK: Final = 4096
_SAMPLES: Final = 3

log = logging.getLogger(__name__)

Spans = Iterable[tuple[int, int]]
"""Where tensors lie in a file: first byte and the one behind the last."""


@dataclass(frozen=True)
class Record:
    """What is known of a cached file.

    Attributes:
        source: the name of the file that it was made from.
        key: the fingerprint of that file and of how it was quantised.
        size: of the cached file, in bytes.
        check: a fingerprint of the cached file itself.
    """

    source: str
    key: str
    size: int
    check: str


def fingerprint(path: Path, head: bytes, spans: Spans) -> str:
    """Return a hash that tells files of one layout apart without reading all of them.

    The head, the size and three blocks of every tensor are hashed, which takes a fraction of a
    second. A retrained or merged model differs in nearly every block; what is not noticed is a
    change of single values, such as a bad sector makes it.

    Args:
        path: the file.
        head: its first bytes, up to the data.
        spans: where its tensors lie, from the start of the file.
    """
    digest = hashlib.sha256(head)
    digest.update(str(path.stat().st_size).encode())
    with path.open("rb", buffering=0) as file:
        for start, stop in sorted(spans):
            last = max(start, stop - _BLOCK)
            for sample in range(_SAMPLES):
                file.seek(start + (last - start) * sample // (_SAMPLES - 1))
                digest.update(file.read(min(_BLOCK, stop - start)))
    return digest.hexdigest()


def key_of(source: str, *, modulation: bool) -> str:
    """Return the key of a source quantised in one way."""
    return hashlib.sha256(f"{FORMAT} {source} {modulation}".encode()).hexdigest()


def path_for(folder: Path, name: str, key: str) -> Path:
    """Return where the cached file of a source lies, there or not."""
    return folder / f"{Path(name).stem[:_LONGEST]}-int8-{key[:12]}{SUFFIX}"


def read_record(path: Path) -> Record | None:
    """Return the record of a cached file; None if there is none that can be read."""
    try:
        values = json.loads(_record_path(path).read_text(encoding="utf-8"))
        return Record(**values)
    except (OSError, ValueError, TypeError):
        return None


def write_record(path: Path, record: Record) -> None:
    """Write the record of a cached file, which from then on is whole."""
    target = _record_path(path)
    write_whole(target, json.dumps(asdict(record), indent=1), by=target.with_suffix(".part"))


def touch(path: Path) -> None:
    """Note that a cached file was used just now."""
    _record_path(path).touch()


def remove(path: Path) -> None:
    """Delete a cached file, then its record: what cannot be deleted stays known.

    Raises:
        OSError: it cannot, as on Windows where a model of it is loaded.
    """
    path.unlink(missing_ok=True)
    _record_path(path).unlink(missing_ok=True)


def prune(folder: Path, *, room: int, keep: Path) -> list[Path]:
    """Delete the files that were not used for longest, until the rest has room.

    What cannot be deleted now, as on Windows while a model of it is loaded, stays for next time.

    Args:
        folder: of the cache.
        room: bytes that all files may take together.
        keep: a file that stays whatever it takes.

    Returns:
        What was deleted.
    """
    used: list[tuple[float, int, Path]] = []
    for path in folder.glob(f"*-int8-*{SUFFIX}"):
        record = _record_path(path)
        if record.is_file():
            used.append((record.stat().st_mtime, path.stat().st_size, path))
    total = sum(size for _, size, _ in used)
    deleted = []
    for _, size, path in sorted(used):
        if total <= room:
            break
        if path == keep:
            continue
        try:
            remove(path)
        except OSError as error:
            log.warning("%s cannot be deleted now: %s", path.name, error)
            continue
        deleted.append(path)
        total -= size
    return deleted


def _record_path(path: Path) -> Path:
    return path.with_suffix(".json")
