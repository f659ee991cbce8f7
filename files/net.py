"""One HTTP request at a time, to nobody we did not check.

Redirects are followed by hand: every hop's host is resolved and checked (`addresses`), the
connection goes to exactly the address that was checked while the certificate must be that of the
host's name, and a token is attached only where the hop is the token's own origin. A token that is
not accepted is left out of a second try, so that it does not hide what is public. There are no
cookies, no ``.netrc``, and no proxy but the one that an administrator names for this (`proxy`).
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, TypeAlias, cast
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter

from ..errors import OfflineError, RefusedError
from .addresses import Target, bare_url, check, named, origin
from .answer import Answer, causes_of, host_of, reason
from .deadline import POOLS, answer_within
from .discreet import discreet, keep_queries_out_of_logs
from .proxy import VARIABLE, ProxyAdapter, check_by_name
from .settings import Settings

__all__ = ["BUSY", "UNAUTHORISED", "Client", "Follow"]

USER_AGENT = "flux-hotswap/0.1 (+https://github.com/flux-hotswap/flux-hotswap)"
MAX_HOPS = 10
UNAUTHORISED = 401
BUSY = {408, 425, 429}
"""With those of 500 and more: statuses that pass."""
_REDIRECTS = {301, 302, 303, 307, 308}

Follow: TypeAlias = "Callable[[Answer, str], bool]"
"""Whether to follow an answer to the address it leads to, which is of another origin."""

logger = logging.getLogger(__name__)


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
            RefusedError: an address on the way is not allowed, or the body is compressed: a few
                bytes of that can fill the memory before anything can be counted.
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
            if answer.status not in _REDIRECTS or not answer.location:
                return _as_it_is(method, answer)
            with ExitStack() as stack:
                stack.enter_context(answer)
                target = _join(url, answer.location)
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
            f"{host_of(start)} does not accept your {name}, so the public file was fetched without "
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
        target = self._target(url)
        headers = {
            "User-Agent": USER_AGENT,
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            **extra,
            "Host": target.authority,
        }
        if not target.addresses:
            return self._through_proxy(method, url, target, headers)
        *others, last = target.addresses
        for address in others:
            answer = self._try(method, url, target, address, headers)
            if answer is not None:
                return answer
        return self._send(method, url, target, last, headers)

    def _target(self, url: str) -> Target:
        """Where a request goes; without addresses if a proxy looks them up."""
        settings = self.settings
        if settings.proxy is not None:
            target, allowed = named(url, allow=settings.allow)
            if not allowed:
                return check_by_name(target)
        return check(url, allow=settings.allow, resolver=settings.resolver)

    def _through_proxy(
        self, method: str, url: str, target: Target, headers: Mapping[str, str]
    ) -> Answer:
        proxy = cast("str", self.settings.proxy)
        adapter = self._adapter(proxy, "", lambda: ProxyAdapter(proxy))
        try:
            return self._sent(adapter, method, url, url, headers)
        except requests.exceptions.ProxyError as error:
            raise OfflineError(
                f"{target.host} cannot be reached through the proxy of {VARIABLE} "
                f"({reason(error)}). Check the proxy and its name and password."
            ) from None
        except requests.exceptions.RequestException as error:
            raise _failure(target, error) from None

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
        adapter = self._adapter(target.host, address, lambda: _PinnedAdapter(target.host))
        try:
            return self._sent(adapter, method, url, pinned, headers)
        except requests.exceptions.RequestException as error:
            raise _failure(target, error) from None

    def _sent(
        self, adapter: HTTPAdapter, method: str, url: str, pinned: str, headers: Mapping[str, str]
    ) -> Answer:
        timeout = (self.settings.connect_timeout, self.settings.read_timeout)
        request = requests.Request(method, pinned, headers=dict(headers)).prepare()
        with discreet():
            response = adapter.send(
                request, stream=True, timeout=timeout, verify=self.settings.ca_bundle or True
            )
        return Answer(url, response)

    def _adapter(self, host: str, address: str, make: Callable[[], HTTPAdapter]) -> HTTPAdapter:
        with self._lock:
            key = (host, address)
            if key not in self._adapters:
                self._adapters[key] = make()
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


def _as_it_is(method: str, answer: Answer) -> Answer:
    """The answer, unless it has a body to use that is compressed."""
    if not answer.encoded or answer.status >= 400 or method == "HEAD":
        return answer
    answer.close()
    raise RefusedError(
        f"{host_of(answer.url)} sends the file compressed, although it was asked not to. Take it "
        "from another place, or ask who runs that server."
    )


def _join(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise RefusedError(
            f"{host_of(url)} redirects to an address that is no web address. Check the source."
        ) from None


def _failure(target: Target, error: BaseException) -> OfflineError | RefusedError:
    causes = list(causes_of(error))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return RefusedError(
            f"{target.host} is not fetched: its certificate does not prove that it is this host "
            f"({reason(error)}). Check the address and this machine's clock and certificates."
        )
    return OfflineError(
        f"{target.host} cannot be reached ({reason(error)}). Check the network, then try again."
    )
