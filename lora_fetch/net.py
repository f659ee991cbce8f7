"""One HTTP request at a time, to nobody we did not check.

Redirects are followed by hand: every hop's host is resolved and checked (`addresses`), the
connection goes to exactly the address that was checked while the certificate must be that of the
host's name, and a token is attached only where the hop is the token's own origin. A token that is
not accepted is left out of a second try, so that it does not hide what is public. There are no
cookies, no ``.netrc`` and no proxies.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Literal, Protocol, TypeAlias, cast
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from .addresses import Target, check, origin
from .deadline import POOLS, answer_within
from .discreet import discreet, keep_queries_out_of_logs
from .errors import OfflineError, RefusedError
from .settings import Settings
from .source import bare_url

__all__ = ["BUSY", "UNAUTHORISED", "Answer", "Auth", "Client", "Follow"]

USER_AGENT = "flux-hotswap/0.1 (+https://github.com/flux-hotswap/flux-hotswap)"
MAX_HOPS = 10
CHUNK = 64 * 1024
BLOCK = 1024 * 1024
GATHER_SECONDS = 0.02
UNAUTHORISED = 401
BUSY = {408, 425, 429}
"""With those of 500 and more: statuses that pass."""
TEXT_SECONDS = 60.0
"""A small document that takes longer than this is not waited for."""
_REDIRECTS = {301, 302, 303, 307, 308}

Auth: TypeAlias = Literal["none", "sent", "refused", "kept"]
"""What became of the user's token: there is none, it was sent, it was not accepted and left out, or
it was kept back because a redirect led away from its own origin."""

Follow: TypeAlias = "Callable[[Answer, str], bool]"
"""Whether to follow an answer to the address it leads to, which is of another origin."""

logger = logging.getLogger(__name__)


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
        encoding = self.headers.get("Content-Encoding", "identity")
        self.encoded = encoding.strip().lower() != "identity"
        self._response = response
        self._raw: _Raw = response.raw
        self._ahead = b""

    def header(self, name: str) -> str:
        """A header, or an empty text."""
        return self.headers.get(name, "")

    def read(self, size: int) -> bytes:
        """The next bytes, as soon as there are any; empty at the end.

        Raises:
            OfflineError: the connection broke or fell silent.
        """
        if self._ahead:
            ahead, self._ahead = self._ahead[:size], self._ahead[size:]
            return ahead
        try:
            if self.encoded or not hasattr(self._raw, "read1"):
                return self._raw.read(size, decode_content=True)
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
                raise OfflineError(f"{_host(self.url)} is too slow. Try again later.")
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
        self._refused: set[str] = set()
        keep_queries_out_of_logs()

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        follow: bool | Follow = True,
    ) -> Answer:
        """Send a request and return the first answer that is not a redirect we follow.

        Args:
            method: GET or HEAD.
            url: The address.
            headers: More headers; a token is added where it belongs.
            follow: Follow redirects to any host, or those of which this says so. Within one origin
                they are always followed; one that is not is returned as it is.

        Raises:
            RefusedError: an address on the way is not allowed.
            OfflineError: no connection or no answer.
        """
        if self.settings.offline:
            raise RefusedError(
                f"{bare_url(url)} is not fetched: FLUX_HOTSWAP_OFFLINE is set. Unset it, or put "
                "the file in its place by hand."
            )
        with answer_within(self.settings.answer_seconds):
            return self._follow(method, url, headers or {}, follow=follow)

    def _follow(
        self, method: str, url: str, headers: Mapping[str, str], *, follow: bool | Follow
    ) -> Answer:
        start, trail = url, ()
        for _ in range(MAX_HOPS):
            trail = (*trail, url)
            answer = self._hop(method, url, headers)
            answer.trail = trail
            if answer.auth == "none" and self.settings.tokens.for_url(start):
                answer.auth = "kept"
            location = answer.header("Location")
            if answer.status not in _REDIRECTS or not location:
                return answer
            with ExitStack() as stack:
                stack.enter_context(answer)
                target = _join(url, location)
                wanted = follow if isinstance(follow, bool) else follow(answer, target)
                if not wanted and origin(target) != origin(url):
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

    def warnings(self) -> tuple[str, ...]:
        """What the user should know after the requests: which tokens were not accepted."""
        return tuple(self._warning(start) for start in sorted(self._refused))

    def _warning(self, start: str) -> str:
        name = self.settings.endpoints.token_name(start)
        return (
            f"{_host(start)} does not accept your {name}, so the public file was fetched without "
            "it. Make a new token, or remove this one."
        )

    def _hop(self, method: str, url: str, extra: Mapping[str, str]) -> Answer:
        token = self.settings.tokens.for_url(url)
        if token is None or origin(url) in self._refused:
            answer = self._ask(method, url, extra)
            answer.auth = "refused" if token else "none"
            return answer
        answer = self._ask(method, url, {**extra, "Authorization": f"Bearer {token}"})
        answer.auth = "sent"
        return self._without(answer, method, extra) if answer.status == UNAUTHORISED else answer

    def _without(self, refusal: Answer, method: str, extra: Mapping[str, str]) -> Answer:
        """Ask once more without the token; where that fares no better, the refusal stands."""
        with ExitStack() as stack:
            stack.enter_context(refusal)
            answer = self._ask(method, refusal.url, extra)
            if 400 <= answer.status < 500 and answer.status not in BUSY:
                answer.close()
                stack.pop_all()
                return refusal
        answer.auth = "refused"
        if answer.status < 400:
            logger.warning("%s", self._warning(refusal.url))
            with self._lock:
                self._refused.add(origin(refusal.url))
        return answer

    def _ask(self, method: str, url: str, extra: Mapping[str, str]) -> Answer:
        target = check(url, allow=self.settings.allow, resolver=self.settings.resolver)
        headers = {
            "User-Agent": USER_AGENT,
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            **extra,
            "Host": target.authority,
        }
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
            with discreet():
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
        """Name the true host for SNI and for the certificate; take connections with an end."""
        super().init_poolmanager(*args, server_hostname=self._host, **kwargs)
        self.poolmanager.pool_classes_by_scheme = POOLS


def _joined(pieces: list[bytes]) -> bytes:
    """All pieces in one; the list is empty after it."""
    block = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    pieces.clear()
    return block


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
