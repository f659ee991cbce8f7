"""What an answer's headers say about the state and the span of the file behind it."""

from __future__ import annotations

import re

from .answer import Answer

__all__ = ["content_range", "length", "state", "validator"]

MAX_STATE = 1024

_LENGTH = re.compile(r"[0-9]{1,18}")
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


def validator(answer: Answer) -> str | None:
    """A strong ETag, or the date of the last change; what If-Range takes."""
    etag = answer.header("ETag").strip()
    if etag and not etag.startswith("W/"):
        return state(etag)
    return state(answer.header("Last-Modified").strip())


def state(text: str) -> str | None:
    """A server's word for a state of a file; None for one that no request can carry back."""
    sound = 0 < len(text) <= MAX_STATE and text.isascii() and text.isprintable()
    return text if sound else None


def length(text: str) -> int | None:
    """A count of bytes in a header; None when it is none."""
    return int(text) if _LENGTH.fullmatch(text) else None


def content_range(answer: Answer) -> tuple[int, int, int | None] | None:
    """Start, end (exclusive) and total of a partial answer; None when it says nothing usable."""
    match = _RANGE.fullmatch(answer.header("Content-Range").strip())
    if match is None:
        return None
    return int(match[1]), int(match[2]) + 1, None if match[3] == "*" else int(match[3])
