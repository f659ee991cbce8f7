"""The answer to one HTTP request, its body as it was sent, and what broke it in a few words."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal, Protocol, TypeAlias, cast
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

from ..errors import OfflineError

__all__ = ["Answer", "Auth", "causes_of", "host_of", "reason"]

CHUNK = 64 * 1024
BLOCK = 1024 * 1024
GATHER_SECONDS = 0.02
TEXT_SECONDS = 60.0
"""A small document that takes longer than this is not waited for."""
_AS_IT_IS = {"", "identity", "aws-chunked"}
"""Content codings that change no byte; object stores keep the last one from an upload."""

Auth: TypeAlias = Literal["none", "sent", "refused", "kept"]
"""What became of the user's token: there is none, it was sent, it was not accepted and left out, or
it was kept back because a redirect led away from its own origin."""


class _Raw(Protocol):
    """The part of urllib3's response that is used."""

    def read(self, amt: int, *, decode_content: bool) -> bytes: ...


class Answer:
    """An answer whose body has not been read yet.

    Attributes:
        encoded: Whether the body is compressed although we asked for it as it is.
        trail: The addresses that led here; this one is the last.
        auth: What became of the user's token for this address.
    """

    def __init__(self, url: str, response: requests.Response) -> None:
        self.url = url
        self.trail: tuple[str, ...] = (url,)
        self.auth: Auth = "none"
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        codings = self.headers.get("Content-Encoding", "").lower().split(",")
        self.encoded = not {coding.strip() for coding in codings} <= _AS_IT_IS
        self._response = response
        self._raw: _Raw = response.raw
        self._ahead = b""

    def header(self, name: str) -> str:
        """A header, or an empty text."""
        return self.headers.get(name, "")

    @property
    def location(self) -> str:
        """Where it leads. Servers write that as UTF-8, and headers are read as Latin-1."""
        text = self.header("Location")
        with suppress(UnicodeError):
            return text.encode("latin-1").decode("utf-8")
        return text

    def read(self, size: int) -> bytes:
        """The next bytes as they were sent, as soon as there are any; empty at the end.

        Raises:
            OfflineError: the connection broke or fell silent.
        """
        if self._ahead:
            ahead, self._ahead = self._ahead[:size], self._ahead[size:]
            return ahead
        try:
            if not hasattr(self._raw, "read1"):
                return self._raw.read(size, decode_content=False)
            return cast("bytes", cast("Any", self._raw).read1(size, decode_content=False))
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise OfflineError(
                f"{host_of(self.url)} broke off the transfer ({reason(error)}). Try again."
            ) from None

    def chunks(self, stop: threading.Event) -> Iterator[bytes]:
        """The body in blocks, until its end or until nobody listens any more.

        Over TLS it comes in records of 16 KB. Those that come fast are put together, since to hand
        on each of them would cost more than to receive it.
        """
        pieces: list[bytes] = []
        size, began, wanted = 0, 0.0, CHUNK
        try:
            while not stop.is_set() and (piece := self.read(wanted)):
                now = time.monotonic()
                began = began if pieces else now
                pieces.append(piece)
                size += len(piece)
                wanted = min(BLOCK, max(CHUNK, 2 * len(piece)))
                if size >= BLOCK // 2 or now - began > GATHER_SECONDS:
                    yield _joined(pieces)
                    size = 0
        except OfflineError:
            yield _joined(pieces)
            raise
        yield _joined(pieces)

    def peek(self, size: int) -> bytes:
        """The first bytes, as many as have come; `read` gives them again.

        Raises:
            OfflineError: as `read`.
        """
        self._ahead = self.read(size)
        return self._ahead

    def text(self, limit: int = 4096) -> str:
        """The start of the body as text, for a message or a small JSON document.

        Raises:
            OfflineError: the connection broke, or takes too long.
        """
        parts: list[bytes] = []
        size, end = 0, time.monotonic() + TEXT_SECONDS
        while size < limit and (chunk := self.read(limit - size)):
            if time.monotonic() > end:
                raise OfflineError(f"{host_of(self.url)} is too slow. Try again later.")
            parts.append(chunk)
            size += len(chunk)
        return b"".join(parts).decode("utf-8", "replace")

    def close(self) -> None:
        """Give the connection back."""
        self._response.close()

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _joined(pieces: list[bytes]) -> bytes:
    """All pieces in one; the list is empty after it."""
    block = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    pieces.clear()
    return block


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """The error and what it wraps, outermost first, each once."""
    seen: set[int] = set()
    todo: list[BaseException] = [error]
    while todo:
        current = todo.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        inner = (current.__cause__, current.__context__, getattr(current, "reason", None))
        todo.extend(e for e in (*inner, *current.args) if isinstance(e, BaseException))


def reason(error: BaseException) -> str:
    """What went wrong in a few words, never with an address in it."""
    causes = list(causes_of(error))
    for cause in reversed(causes):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return str(cause.verify_message or "certificate verify failed")
    for cause in reversed(causes):
        if isinstance(cause, socket.timeout | TimeoutError):
            return "timed out"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
    return type(causes[-1]).__name__


def host_of(url: str) -> str:
    """The host of an address, for a message."""
    return urlsplit(url).hostname or "the server"
