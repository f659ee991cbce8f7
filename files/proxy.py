"""A proxy that an administrator names, where it is the only way out.

What the name of a host leads to is then known to the proxy alone, so the check of addresses ends
there: only names and addresses that cannot be public are refused here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter

from ..errors import RefusedError, SettingsError
from .addresses import Target, is_public
from .deadline import POOLS

__all__ = ["VARIABLE", "ProxyAdapter", "check_by_name", "proxy_of"]

VARIABLE: Final = "FLUX_HOTSWAP_PROXY"
_HERE: Final = (
    *("localhost", "localdomain", "local", "internal", "intranet", "private", "lan", "home"),
    *("corp", "home.arpa"),
)
"""Names, and ends of names, that mean this machine or the network it is in."""
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")


def proxy_of(environ: Mapping[str, str]) -> str | None:
    """Return the proxy that the administrator names; None for none.

    Raises:
        SettingsError: it is no address of a proxy. What was given is not repeated: it can hold a
            password.
    """
    text = environ.get(VARIABLE, "").strip()
    if not text:
        return None
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise SettingsError(
            f"{VARIABLE} is not the address of a proxy: write it as http://host:port, or as "
            "http://user:password@host:port."
        )
    return text


def check_by_name(target: Target) -> Target:
    """Make sure that a host may be public, as far as its name tells.

    Raises:
        RefusedError: it cannot be.
    """
    if not _may_be_public(target.host):
        raise RefusedError(
            f"{target.host} is not fetched: it is not on the public internet. If you run that "
            f"server, add {target.host} to FLUX_HOTSWAP_ALLOW_HOSTS; it is then asked without the "
            "proxy."
        )
    return target


def _may_be_public(host: str) -> bool:
    try:
        plain = host.encode("idna").decode("ascii").lower()  # 127\u30020.0.1 is 127.0.0.1
    except UnicodeError:
        return False
    labels = plain.split(".")
    if ":" in plain or _NUMBER.fullmatch(labels[-1]):  # 127.1 and 0x7f.1 are addresses too
        return is_public(plain)
    return len(labels) > 1 and not f".{plain}".endswith(tuple(f".{end}" for end in _HERE))


class ProxyAdapter(HTTPAdapter):
    """Sends requests through a proxy, on connections with an end."""

    def __init__(self, proxy: str) -> None:
        self._proxy = proxy
        super().__init__(pool_connections=2, pool_maxsize=32)

    def send(self, *args: Any, **kwargs: Any) -> Any:
        """Send a request through the proxy."""
        kwargs["proxies"] = {"https": self._proxy}
        return super().send(*args, **kwargs)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """Take connections with an end, as without a proxy."""
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        manager.pool_classes_by_scheme = POOLS
        return manager
