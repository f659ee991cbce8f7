"""Strangers' texts, made fit for a line of a log, a report or the index: printable and bounded."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["one_line", "trigger_words"]

MAX_WORDS = 64
MAX_WORD = 500
MAX_ALL = 4000


def one_line(text: str, limit: int) -> str:
    """A text on one line, without signs that a terminal obeys or nobody sees.

    Args:
        text: Of any length.
        limit: In characters; what is longer ends in three dots.
    """
    start = text[:limit]
    line = "".join(c if c.isprintable() else " " for c in start).strip()
    return line if len(start) == len(text) else f"{line[: limit - 3]}..."


def trigger_words(words: Iterable[object]) -> list[str]:
    """The words that a source or a file names: a few of a readable length, whatever it sends."""
    found: list[str] = []
    left = MAX_ALL
    for word in words:
        line = one_line(word, MAX_WORD).strip(" ,") if isinstance(word, str) else ""
        if not line:
            continue
        left -= len(line)
        if left < 0 or len(found) == MAX_WORDS:
            break
        found.append(line)
    return found
