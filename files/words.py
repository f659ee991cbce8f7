"""A server's own words about a refusal: short, on one line, without secrets."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import cast
from urllib.parse import parse_qsl, urlsplit

from ..errors import OfflineError
from .answer import Answer
from .tokens import Tokens

__all__ = ["said"]

LONGEST = 200
_KEYS = ("message", "error", "detail", "title", "error_description", "msg")
_XML = re.compile(r"<(Message|Details)>([^<]*)</\1>", re.IGNORECASE)
_SECRET_LENGTH = 6
"""Shorter values of a query are words such as ``get``."""


def said(answer: Answer, tokens: Tokens) -> str:
    """What the server says, with a colon before it; empty where it says nothing.

    Args:
        answer: The answer; the start of its body is read.
        tokens: They are blanked, as are the queries of the addresses that were asked.
    """
    words = " ".join((answer.header("X-Error-Message") or _message(answer)).split())
    words = tokens.scrub(words)
    for url in answer.trail:
        for secret in _secrets(url):
            words = words.replace(secret, "***")
    words = "".join(c for c in words if c.isprintable())
    return f": {words[:LONGEST]}" if words else ""


def _secrets(url: str) -> Iterator[str]:
    """The query of an address, and its values as they stand there and as they are meant."""
    query = urlsplit(url).query
    if query:
        yield query
    written = [pair.partition("=")[2] for pair in query.split("&")]
    for value in (*written, *(value for _, value in parse_qsl(query))):
        if len(value) >= _SECRET_LENGTH:
            yield value


def _message(answer: Answer) -> str:
    """The message in a JSON object, in an XML document as storage services send, or plain text."""
    kind = answer.header("Content-Type").partition(";")[0].strip().lower()
    if answer.encoded or not kind.endswith(("json", "xml", "text/plain")) or "html" in kind:
        return ""
    try:
        text = answer.text()
    except OfflineError:
        return ""
    if kind.endswith("json"):
        return _in_json(text)
    if kind.endswith("xml"):
        return " ".join(html.unescape(match[2]) for match in _XML.finditer(text))
    return "" if "<" in text else text


def _in_json(text: str) -> str:
    try:
        document: object = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    values = _values(document)
    inner = [value for nested in values for value in _values(nested)]  # {"error": {"message": ..}}
    return next((value for value in (*values, *inner) if isinstance(value, str)), "")


def _values(document: object) -> list[object]:
    """What a JSON object holds under the names that services use for messages."""
    if not isinstance(document, dict):
        return []
    table = cast("dict[str, object]", document)
    return [table.get(key) for key in _KEYS]
