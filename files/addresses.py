"""Which network addresses a fetch may connect to.

A LoRA's address is a stranger's text, so it must not become a way to reach what only this machine
can reach (other services here, the local network, a cloud's metadata service). Every host of every
hop is resolved, every answer is checked, and the caller connects to exactly the address that was
checked. Hosts that the administrator names are exempt.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from ..errors import OfflineError, RefusedError, SettingsError

__all__ = ["AllowList", "Resolver", "Target", "check", "is_public", "named", "origin"]

Resolver: TypeAlias = Callable[[str, int], Iterable[str]]
"""(host, port) to the addresses it has; raises ``socket.gaierror`` where there are none."""

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_DEFAULT_PORT = {"http": 80, "https": 443}
_FOUR = [
    ipaddress.IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT, and one cloud's metadata service
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a cloud's platform service, though the number looks public
        "169.254.0.0/16",  # link-local, most clouds' metadata service
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments, another cloud's metadata service
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
]
_GLOBAL_SIX = ipaddress.IPv6Network("2000::/3")
_SIX = [
    ipaddress.IPv6Network(block)
    for block in (
        "2001::/23",  # protocol assignments; Teredo wraps an IPv4 address
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4 wraps an IPv4 address
        "3fff::/20",  # documentation
    )
]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_ENTRY = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:/\s]+)(?::([0-9]{1,5}))?")


@dataclass(frozen=True)
class AllowList:
    """Hosts the administrator vouches for: private addresses and plain http are fine there."""

    hosts: frozenset[tuple[str, int | None]] = frozenset()

    @classmethod
    def parse(cls, text: str) -> AllowList:
        """Read ``host`` and ``host:port`` entries, separated by commas or spaces.

        Raises:
            SettingsError: an entry is neither.
        """
        hosts: set[tuple[str, int | None]] = set()
        for entry in re.split(r"[\s,;]+", text.strip().lower()):
            if not entry:
                continue
            match = _ENTRY.fullmatch(entry)
            if match is None:
                raise SettingsError(
                    f"FLUX_HOTSWAP_ALLOW_HOSTS: {entry!r} is not a host. Write a name or an "
                    "address, with :port if only that port is meant, separated by commas."
                )
            hosts.add((match[1].strip("[]"), int(match[2]) if match[2] else None))
        return cls(frozenset(hosts))

    def permits(self, host: str, port: int) -> bool:
        """Whether this host, on this port, was named."""
        return (host, None) in self.hosts or (host, port) in self.hosts


@dataclass(frozen=True)
class Target:
    """Where one request goes: the checked addresses, and the name they were asked for."""

    scheme: str
    host: str
    port: int
    addresses: tuple[str, ...]

    @property
    def authority(self) -> str:
        """Host, and port where it is not the usual one, as the Host header wants it."""
        host = _bracketed(self.host)
        return host if self.port == _DEFAULT_PORT[self.scheme] else f"{host}:{self.port}"


def system_resolver(host: str, port: int) -> list[str]:
    """Ask the system for the addresses of a host."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def origin(url: str) -> str:
    """Scheme, host and port of an address, in one spelling; what a token is bound to."""
    parts = _split(url)
    return f"{parts.scheme}://{_bracketed(_host(parts))}:{_port(parts)}"


def is_public(address: str) -> bool:
    """Whether an IP address is an ordinary one of the public internet."""
    try:
        ip: Address = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or _nat64(ip)
        if inner is None:
            return ip in _GLOBAL_SIX and not any(ip in block for block in _SIX)
        ip = inner
    return not any(ip in block for block in _FOUR)


def check(url: str, *, allow: AllowList, resolver: Resolver) -> Target:
    """Resolve an address's host and make sure that we may go there.

    Raises:
        RefusedError: not https, or an address that is not public.
        OfflineError: the host has no address.
    """
    target, allowed = named(url, allow=allow)
    addresses = _resolve(target.host, target.port, resolver)
    if not allowed:
        for address in addresses:
            if not is_public(address):
                raise RefusedError(
                    f"{target.host} is not fetched: its address {address} is not on the public "
                    f"internet. If you run that server, add {target.host} to "
                    "FLUX_HOTSWAP_ALLOW_HOSTS."
                )
    return replace(target, addresses=addresses)


def named(url: str, *, allow: AllowList) -> tuple[Target, bool]:
    """Return where an address leads by its name, and whether the administrator vouches for it.

    Raises:
        RefusedError: not https.
    """
    parts = _split(url)
    host, port = _host(parts), _port(parts)
    allowed = allow.permits(host, port)
    if parts.scheme != "https" and not allowed:
        raise RefusedError(
            f"{parts.scheme}://{host} is not fetched: only https is safe from tampering. Use the "
            "https address, or let the administrator name the host in FLUX_HOTSWAP_ALLOW_HOSTS."
        )
    return Target(parts.scheme, host, port, ()), allowed


def _resolve(host: str, port: int, resolver: Resolver) -> tuple[str, ...]:
    try:
        addresses = tuple(resolver(host, port))
    except (socket.gaierror, UnicodeError) as error:
        lasting = isinstance(error, UnicodeError) or error.errno == socket.EAI_NONAME
        raise OfflineError(
            f"{host} cannot be found: the name has no address. Check the spelling and the network.",
            transient=not lasting,
        ) from None
    if not addresses:
        raise OfflineError(f"{host} has no address. Check the network.")
    return addresses


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _DEFAULT_PORT and _host(parts) and parts.port != 0
    except ValueError:
        usable = False
        parts = urlsplit("")
    if not usable:
        raise RefusedError(
            "A server's answer leads to an address that is no web address. Check the source."
        )
    return parts


def _host(parts: SplitResult) -> str:
    """The host in ASCII, as a request carries it; raises UnicodeError where it has no such form."""
    host = (parts.hostname or "").rstrip(".")
    return host if host.isascii() else host.encode("idna").decode("ascii")


def _port(parts: SplitResult) -> int:
    return parts.port or _DEFAULT_PORT[parts.scheme]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _nat64(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6-only network's DNS wrapped, so that it is checked as such."""
    return ipaddress.IPv4Address(ip.packed[12:]) if ip in _NAT64 else None


def bare_url(url: str) -> str:
    """An address without its query and fragment, fit for a message, a log or the index."""
    return re.split(r"[?#]", url, maxsplit=1)[0]
