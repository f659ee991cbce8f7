"""One POST to an address that a client gave, to nobody that was not checked."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from ..errors import OfflineError, RefusedError
from ..files.addresses import Target, check, named
from ..files.answer import reason
from ..files.net import USER_AGENT
from ..files.proxy import check_by_name
from ..files.settings import Settings

SECONDS: Final = 30.0
"""So long a receiver has, name look-up included: pictures may be in the body."""

CONNECT_SECONDS: Final = 10.0

_LIMITS: Final = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)

LONGEST: Final = 2048
"""Letters of the longest address."""


class _Checked(AbstractResolver):
    """Knows the addresses that were checked, and no others."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,
    ) -> list[ResolveResult]:
        """Return them, whatever is asked."""
        return [
            ResolveResult(
                hostname=host, host=address, port=self._target.port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0, flags=socket.AI_NUMERICHOST,
            )
            for address in self._target.addresses
        ]  # fmt: skip

    async def close(self) -> None:
        """Nothing is open."""


def check_form(url: str, settings: Settings) -> None:
    """Make sure that an address may be posted to, as far as its form tells.

    Raises:
        RefusedError: it may not.
    """
    if len(url) > LONGEST or not url.isprintable() or any(letter.isspace() for letter in url):
        raise RefusedError(
            f"webhook: the address has spaces, or more than {LONGEST} letters. Give a plain one."
        )
    try:
        target, allowed = named(url, allow=settings.allow)
        if not allowed:
            check_by_name(target)
    except RefusedError:
        raise RefusedError(
            "webhook: only https addresses of the public internet are told. Use one, or let the "
            "administrator add its host to FLUX_HOTSWAP_ALLOW_HOSTS."
        ) from None
    parts = _parts(url)
    if parts is not None and (parts.user, parts.password) != (None, None):
        raise RefusedError("webhook: the address holds a name or a password. Remove them.")
    if parts is None or parts.port != target.port or target.host not in _spellings(parts):
        raise RefusedError("webhook: the address is no plain web address. Write its host plainly.")


async def post(
    url: str, body: bytes, headers: Mapping[str, str], settings: Settings, seconds: float = SECONDS
) -> int:
    """Send a body and return the status of the answer, which is not read.

    Args:
        url: the address.
        body: JSON.
        headers: further ones.
        settings: the rules.
        seconds: so long it may take in all.

    Raises:
        RefusedError: the address is not allowed.
        OfflineError: no answer.
    """
    try:
        return await asyncio.wait_for(_post(url, body, headers, settings), seconds)
    except asyncio.TimeoutError:
        raise OfflineError(f"no answer within {seconds:.0f} s. Check the receiver.") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        if isinstance(error, RefusedError):
            raise
        raise OfflineError(f"no answer ({reason(error)}).") from None


async def _post(url: str, body: bytes, headers: Mapping[str, str], settings: Settings) -> int:
    check_form(url, settings)
    target, proxy = await asyncio.to_thread(_way, url, settings)
    connector = aiohttp.TCPConnector(
        resolver=None if proxy else _Checked(target),
        use_dns_cache=False,
        force_close=True,
        ssl=_certificates(settings.ca_bundle),
    )
    sent = {"User-Agent": USER_AGENT, "Content-Type": "application/json", **headers}
    async with (
        aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=_LIMITS
        ) as session,
        session.post(url, data=body, headers=sent, allow_redirects=False, proxy=proxy) as answer,
    ):
        return answer.status


def _way(url: str, settings: Settings) -> tuple[Target, str | None]:
    """Return where a request goes, and the proxy that looks its name up instead of us, if any."""
    target, allowed = named(url, allow=settings.allow)
    if settings.proxy is not None and not allowed:
        return target, settings.proxy
    return check(url, allow=settings.allow, resolver=settings.resolver), None


def _parts(url: str) -> URL | None:
    """Return an address as aiohttp reads it, which may differ from how we do."""
    try:
        return URL(url)
    except ValueError:
        return None


def _spellings(parts: URL) -> set[str]:
    """Return a host in letters of all languages, and as DNS writes it."""
    return {(host or "").rstrip(".") for host in (parts.host, parts.raw_host)}


@functools.lru_cache(maxsize=2)
def _certificates(bundle: str | None) -> ssl.SSLContext:
    if bundle is not None and Path(bundle).is_dir():
        return ssl.create_default_context(capath=bundle)
    return ssl.create_default_context(cafile=bundle)
