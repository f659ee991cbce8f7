"""Notices when the source of an applied LoRA has come to mean other bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

RECENT: Final = 8
"""So many sources are asked about for a node whose own one is not known yet."""


@dataclass
class _Seen:
    source: str
    sha256: str
    changes: int = 0


@dataclass
class Watch:
    """What this process has applied, by source.

    A source's state stays the same from before its first fetch until its bytes change, so that a
    second run finds everything in the cache.
    """

    _seen: dict[str, _Seen] = field(default_factory=dict)
    _changes: int = 0

    def note(self, source: str, sha256: str) -> None:
        """Remember what a source meant when it was applied."""
        key = _key(source)
        self._seen[key] = self._seen.pop(key, None) or _Seen(source, sha256)  # now the latest
        self._update(self._seen[key], sha256)

    def _update(self, seen: _Seen, sha256: str) -> None:
        if seen.sha256 != sha256:
            seen.sha256 = sha256
            seen.changes += 1
            self._changes += 1

    def state(self, source: str | None, look: Callable[[str], str | None]) -> str:
        """Return a text that is another one when a source means other bytes.

        Args:
            source: as the user wrote it; None if it is not known yet, which stands for any.
            look: asked what a source means now; None from it means that this cannot be told.
        """
        key = None if source is None else _key(source)
        wanted = list(self._seen)[-RECENT:] if key is None else [key]
        for seen in [self._seen[name] for name in wanted if name in self._seen]:
            now = look(seen.source)
            if now is not None:
                self._update(seen, now)
        if key is None:
            return str(self._changes)
        return str(self._seen[key].changes if key in self._seen else 0)


def _key(source: str) -> str:
    """A source can be megabytes long: its bytes, in a data: URI."""
    return hashlib.sha256(source.strip().encode()).hexdigest()
