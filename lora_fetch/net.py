"""One HTTP request at a time, to nobody we did not check.

Redirects are followed by hand: every hop's host is resolved and checked (`addresses`), the
connection goes to exactly the address that was checked while the certificate must be that of the
host's name, and a token is attached only where the hop is the token's own origin. There are no
cookies, no ``.netrc`` and no proxies.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, cast
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from .addresses import Target, check, origin
from .errors import OfflineError, RefusedError
from .settings import Settings
from .source import bare_url

__all__ = ["Answer", "Client"]

USER_AGENT = "flux-hotswap/0.1 (+https://github.com/flux-hotswap/flux-hotswap)"
MAX_HOPS = 10
CHUNK = 64 * 1024
BLOCK = 1024 * 1024
GATHER_SECONDS = 0.02
_REDIRECTS = {301, 302, 303, 307, 308}
_AS_IT_IS = {"", "identity", "aws-chunked"}
"""Content codings that change no byte; object stores keep the last one from an upload."""

logger = logging.getLogger(__name__)


class _Raw(Protocol):
    """The part of urllib3's response that is used."""

    def read(self, amt: int, *, decode_content: bool) -> bytes: ...


class Answer:
    """An answer whose body has not been read yet.

    Attributes:
        encoded: Whether the body is compressed although we asked for it as it is.
    """

    def __init__(self, url: str, response: requests.Response) -> None:
        self.url = url
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        codings = self.headers.get("Content-Encoding", "").lower().split(",")
        self.encoded = not {coding.strip() for coding in codings} <= _AS_IT_IS
        self._response = response
        self._raw: _Raw = response.raw

    def header(self, name: str) -> str:
        """A header, or an empty text."""
        return self.headers.get(name, "")

    def read(self, size: int) -> bytes:
        """The next bytes as they were sent, as soon as there are any; empty at the end.

        Raises:
            OfflineError: the connection broke or fell silent.
        """
        try:
            if not hasattr(self._raw, "read1"):
                return self._raw.read(size, decode_content=False)
            return cast("bytes", cast("Any", self._raw).read1(size, decode_content=False))
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise OfflineError(
                f"{_host(self.url)} broke off the transfer ({_reason(error)}). Try again."
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

    def text(self, limit: int = 4096) -> str:
        """The start of the body as text, for a message or a small JSON document."""
        parts: list[bytes] = []
        size = 0
        while size < limit and (chunk := self.read(limit - size)):
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


class Client:
    """Sends requests under the rules of `Settings`; close it after use."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._adapters: dict[tuple[str, str], HTTPAdapter] = {}
        self._lock = threading.Lock()
        pool_log = logging.getLogger("urllib3.connectionpool")
        if _no_queries not in pool_log.filters:
            pool_log.addFilter(_no_queries)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        follow: bool = True,
    ) -> Answer:
        """Send a request and return the first answer that is not a redirect we follow.

        Args:
            method: GET or HEAD.
            url: The address.
            headers: More headers; a token is added where it belongs.
            follow: Follow redirects to any host. If not, only those within one origin are
                followed, and one that leads elsewhere is returned as it is.

        Raises:
            RefusedError: an address on the way is not allowed, or the body is compressed: a few
                bytes of that can fill the memory before anything can be counted.
            OfflineError: no connection or no answer.
        """
        if self.settings.offline:
            raise RefusedError(
                f"{bare_url(url)} is not fetched: FLUX_HOTSWAP_OFFLINE is set. Unset it, or put "
                "the file in its place by hand."
            )
        start = url
        for _ in range(MAX_HOPS):
            answer = self._hop(method, url, headers or {})
            location = answer.header("Location")
            if answer.status not in _REDIRECTS or not location:
                return _as_it_is(method, answer)
            with ExitStack() as stack:
                stack.enter_context(answer)
                target = _join(url, location)
                if not follow and origin(target) != origin(url):
                    stack.pop_all()
                    return answer
                url = target
        raise RefusedError(
            f"{bare_url(start)} redirects more than {MAX_HOPS} times. Check the address."
        )

    def close(self) -> None:
        """Close the connections that are idle."""
        with self._lock:
            for adapter in self._adapters.values():
                adapter.close()
            self._adapters.clear()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hop(self, method: str, url: str, extra: Mapping[str, str]) -> Answer:
        target = check(url, allow=self.settings.allow, resolver=self.settings.resolver)
        headers = {
            "User-Agent": USER_AGENT,
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            **extra,
            "Host": target.authority,
        }
        token = self.settings.tokens.for_url(url)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        *others, last = target.addresses
        for address in others:
            answer = self._try(method, url, target, address, headers)
            if answer is not None:
                return answer
        return self._send(method, url, target, last, headers)

    def _try(
        self, method: str, url: str, target: Target, address: str, headers: Mapping[str, str]
    ) -> Answer | None:
        try:
            return self._send(method, url, target, address, headers)
        except OfflineError as error:
            logger.info("Trying the next address. %s", error)
            return None

    def _send(
        self, method: str, url: str, target: Target, address: str, headers: Mapping[str, str]
    ) -> Answer:
        parts = urlsplit(url)
        netloc = f"[{address}]" if ":" in address else address
        pinned = urlunsplit(
            (target.scheme, f"{netloc}:{target.port}", parts.path or "/", parts.query, "")
        )
        timeout = (self.settings.connect_timeout, self.settings.read_timeout)
        try:
            request = requests.Request(method, pinned, headers=dict(headers)).prepare()
            with _discreet():
                response = self._adapter(target.host, address).send(
                    request, stream=True, timeout=timeout, verify=self.settings.ca_bundle or True
                )
        except requests.exceptions.RequestException as error:
            raise _failure(target, error) from None
        return Answer(url, response)

    def _adapter(self, host: str, address: str) -> HTTPAdapter:
        with self._lock:
            key = (host, address)
            if key not in self._adapters:
                self._adapters[key] = _PinnedAdapter(host)
            return self._adapters[key]


class _PinnedAdapter(HTTPAdapter):
    """Talks to an IP address and demands the certificate of a host name."""

    def __init__(self, host: str) -> None:
        self._host = host
        super().__init__(pool_connections=2, pool_maxsize=32)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Name the true host for SNI and for the certificate."""
        super().init_poolmanager(*args, server_hostname=self._host, **kwargs)


def _joined(pieces: list[bytes]) -> bytes:
    """All pieces in one; the list is empty after it."""
    block = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    pieces.clear()
    return block


def _as_it_is(method: str, answer: Answer) -> Answer:
    """The answer, unless it has a body to use that is compressed."""
    if not answer.encoded or answer.status >= 400 or method == "HEAD":
        return answer
    answer.close()
    raise RefusedError(
        f"{_host(answer.url)} sends the file compressed, although it was asked not to. Take it "
        "from another place, or ask who runs that server."
    )


def _join(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise RefusedError(
            f"{_host(url)} redirects to an address that is no web address. Check the source."
        ) from None


def _failure(target: Target, error: BaseException) -> OfflineError | RefusedError:
    causes = list(_causes(error))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return RefusedError(
            f"{target.host} is not fetched: its certificate does not prove that it is this host "
            f"({_reason(error)}). Check the address and this machine's clock and certificates."
        )
    return OfflineError(
        f"{target.host} cannot be reached ({_reason(error)}). Check the network, then try again."
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
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


def _reason(error: BaseException) -> str:
    """What went wrong in a few words, never with an address in it."""
    causes = list(_causes(error))
    for cause in reversed(causes):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return str(cause.verify_message or "certificate verify failed")
    for cause in reversed(causes):
        if isinstance(cause, socket.timeout | TimeoutError):
            return "timed out"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
    return type(causes[-1]).__name__


def _host(url: str) -> str:
    return urlsplit(url).hostname or "the server"


class _NoQueries(logging.Filter):
    """Keeps the queries of our addresses out of urllib3's debug log: they can be signatures."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Cut the query off every text of a record that one of our requests made."""
        if getattr(_ours, "active", False) and isinstance(record.args, tuple):
            record.args = tuple(
                bare_url(arg) if isinstance(arg, str) else arg for arg in record.args
            )
        return True


_ours = threading.local()
_no_queries = _NoQueries()


@contextmanager
def _discreet() -> Generator[None, None, None]:
    _ours.active = True
    try:
        yield
    finally:
        _ours.active = False
