"""What an answer's headers say about the state and the span of the file behind it."""

from __future__ import annotations

import re

from .net import Answer

__all__ = ["content_range", "validator"]

_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


def validator(answer: Answer) -> str | None:
    """A strong ETag, or the date of the last change; what If-Range takes."""
    etag = answer.header("ETag").strip()
    if etag and not etag.startswith("W/"):
        return etag
    return answer.header("Last-Modified").strip() or None


def content_range(answer: Answer) -> tuple[int, int, int | None] | None:
    """Start, end (exclusive) and total of a partial answer; None when it says nothing usable."""
    match = _RANGE.fullmatch(answer.header("Content-Range").strip())
    if match is None:
        return None
    return int(match[1]), int(match[2]) + 1, None if match[3] == "*" else int(match[3])
