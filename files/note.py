"""What the bytes of a broken transfer belong to, as it is kept beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from .validators import MAX_STATE, state

__all__ = ["MAX_NOTE", "Note", "read_note"]

MAX_NOTE = 2**16
"""Bytes of the largest note that is read."""


@dataclass
class Note:
    """What the bytes belong to; kept on disk.

    Attributes:
        validator: The server's word for the file's state, for If-Range.
        revision: The source's word for it.
        sha256: The hash that the source publishes.
        total: Size of the file.
        have: With several connections: bytes at the start without a hole. The file can be longer.
    """

    validator: str | None = None
    revision: str | None = None
    sha256: str | None = None
    total: int | None = None
    have: int | None = None


def read_note(raw: bytes) -> Note | None:
    """A note as it lies on the disk; None for one that a crash, a bad disk or a hand has changed.

    What is in it goes into a request and into file positions, so each value is looked at.
    """
    try:
        document: object = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    table = cast("dict[str, Any]", document)
    sound = table.keys() <= _NOTE.keys() and all(
        value is None or _NOTE[name](value) for name, value in table.items()
    )
    if not sound:
        return None
    return Note(**table)


def _is_state(value: object) -> bool:
    return isinstance(value, str) and state(value) is not None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_STATE


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


_NOTE: Mapping[str, Callable[[object], bool]] = {
    "validator": _is_state,
    "revision": _is_text,
    "sha256": _is_text,
    "total": _is_count,
    "have": _is_count,
}
