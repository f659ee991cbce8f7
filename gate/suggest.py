"""Which LoRAs are here, for the suggestions under a field in the graph editor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import BadFileError, FetchError, SourceError
from ..texts import one_line

if TYPE_CHECKING:
    from ..lora_fetch.index import Entry

MOST: Final = 20
"""So many are named at once, and no more files are opened than that."""

_REMEMBERED: Final = 1000
_WORDS: Final = 5
_WORD: Final = 80


@dataclass(frozen=True)
class _Lora:
    """A LoRA that is here.

    Attributes:
        source: what to write into a field to have it.
        file: its name below the loras folders.
        found_by: what a search for it looks into, in lower case.
        words: its trigger words; None where only the file itself can tell.
    """

    source: str
    file: str
    found_by: str
    words: list[str] | None = None


def suggest(text: str) -> dict[str, Any]:
    """Return which LoRAs a text may be the beginning of.

    Args:
        text: what has been typed; each word of it has to be somewhere in a name.

    Returns:
        As `loras` at most `MOST`, each with what to write into the field (`source`), its file, the
        size of that in bytes and its trigger words: those that were fetched first, last used first,
        then the files of the loras folders. As `more` how many fit beside them.
    """
    wanted = text.casefold().split()
    fits = [lora for lora in _all() if all(word in lora.found_by for word in wanted)]
    told = [entry for lora in fits[:MOST] if (entry := _told(lora)) is not None]
    return {"loras": told, "more": max(len(fits) - MOST, 0)}


def _all() -> Iterator[_Lora]:
    fetched = {lora.file: lora for lora in _fetched()}
    return chain(fetched.values(), (lora for lora in _files() if lora.file not in fetched))


def _fetched() -> Iterator[_Lora]:
    """Yield what was fetched, the last used first; nothing where the store cannot be read."""
    from ..engine.fetching import open_store
    from ..lora_fetch.store import FOLDER

    try:
        store = open_store()
        entries = sorted(
            store.entries().items(), key=lambda item: -max(item[1].used, item[1].fetched)
        )
    except (FetchError, OSError):
        return
    for key, entry in entries:
        if store.path(entry).is_file():
            file = f"{FOLDER}/{entry.file}"
            source = _source(key, entry) or file
            words = " ".join(entry.trigger_words)
            found_by = f"{source} {entry.name} {file} {words}".casefold()
            yield _Lora(source, file, found_by, entry.trigger_words)


def _source(key: str, entry: Entry) -> str | None:
    """Return the text that a file was fetched by; None if it held a secret, which is not kept."""
    from ..lora_fetch.parser import parse
    from ..lora_fetch.store import key_of

    try:
        return entry.source if key_of(parse(entry.source)) == key else None
    except SourceError:
        return None


def _files() -> Iterator[_Lora]:
    """Yield what a user put into the loras folders, as far as a field can name it."""
    import folder_paths

    from ..engine.fetching import LORAS
    from ..lora_fetch.parser import parse
    from ..lora_fetch.services.local import LocalFile

    for name in folder_paths.get_filename_list(LORAS):
        file = name.replace("\\", "/")
        try:
            if parse(file) == LocalFile(file):
                yield _Lora(file, file, file.casefold())
        except SourceError:
            continue


def _told(lora: _Lora) -> dict[str, Any] | None:
    """Return what is told of a LoRA; None if its file has gone."""
    import folder_paths

    from ..engine.fetching import LORAS

    there = folder_paths.get_full_path(LORAS, lora.file)
    if there is None:
        return None
    path = Path(there)
    try:
        state = path.stat()
        words = lora.words
        if words is None:
            words = _words(path, state.st_size, state.st_mtime_ns)
    except OSError:
        return None
    shown = [one_line(word, _WORD) for word in words[:_WORDS]]
    return {"source": lora.source, "file": lora.file, "size": state.st_size, "words": shown}


@lru_cache(_REMEMBERED)
def _words(path: Path, size: int, mtime_ns: int) -> list[str]:  # noqa: ARG001 - its key
    """Return the trigger words that a file itself names."""
    from ..files import header
    from ..lora_fetch.fetch import phrase_of

    try:
        return phrase_of(header.read(path))
    except BadFileError:
        return []
