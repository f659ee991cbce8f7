"""What a fetch may do and where the services live: one frozen value, made once.

Time, waiting, name look-up and free disk space are fields too, so a test needs no real ones.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import NoRoomError, SettingsError
from .addresses import AllowList, Resolver, origin, system_resolver
from .proxy import proxy_of
from .tokens import CIVITAI, HUB, REPLICATE, Tokens, hub_login, load

__all__ = ["Endpoints", "Settings", "free_space", "parse_size"]

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_ON = ("1", "true", "yes", "on")
_OFF = ("", "0", "false", "no", "off")
MIB = 2**20
CIVITAI_TWIN = "https://civitai.red"
"""CivitAI's address for everything; civitai.com shows what is fit for all."""


@dataclass(frozen=True)
class Endpoints:
    """Where each service answers; no trailing slash."""

    hub: str = "https://huggingface.co"
    civitai: str = "https://civitai.com"
    replicate: str = "https://replicate.com"
    replicate_api: str = "https://api.replicate.com"
    civitai_twin: str = ""
    """Asked, without a token, for models that CivitAI's first address hides; empty: not asked."""

    def token_name(self, url: str) -> str:
        """The variable that holds the token of this address's service."""
        names = {
            self.hub: HUB[0],
            self.civitai: CIVITAI[0],
            self.replicate_api: REPLICATE[0],
        }
        return next((n for start, n in names.items() if origin(start) == origin(url)), "token")


def free_space(folder: Path) -> int:
    """Bytes that this user can still write on the folder's disk."""
    return shutil.disk_usage(folder).free


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The rules of a fetch."""

    endpoints: Endpoints = Endpoints()
    tokens: Tokens = field(default_factory=Tokens)
    allow: AllowList = field(default_factory=AllowList)
    max_bytes: int = 8 * 2**30
    """No single file may be larger."""
    cache_bytes: int = 50 * 2**30
    """Together the fetched files stay below this; the least recently used go first."""
    reserve_bytes: int = 2**30
    """This much of the disk stays free."""
    recheck_after: float = 24 * 3600.0
    """Seconds after which a name that can move is looked up again."""
    retry_check_after: float = 300.0
    """Seconds after which it is tried again when that look-up failed."""
    keep_recent: float = 900.0
    """Seconds during which a used file is not evicted: a run may be about to load it."""
    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    answer_seconds: float = 60.0
    """After so long the head of an answer must be here, redirects included."""
    stall_seconds: float = 30.0
    stall_bytes: int = 16 * 1024
    """A connection that brings fewer bytes in that many seconds counts as broken."""
    attempts: int = 5
    """Tries in a row without progress before giving up."""
    backoff: float = 0.5
    """Seconds before the second try; doubled each time."""
    max_wait: float = 60.0
    """A server that asks for a longer wait than this is not waited for."""
    connections: int = 16
    """Most connections for one file."""
    parallel_from: int = 32 * MIB
    """Fewer remaining bytes than this come over one connection."""
    probe_seconds: float = 0.1
    """So long the first connection is watched before it gets help."""
    fast_enough: int = 64 * MIB
    """Bytes per second of the first connection above which more of them would not help."""
    piece_bytes: int = 4 * MIB
    """Most bytes that one connection takes at a time when there are several."""
    proxy: str | None = field(default=None, repr=False)
    """The proxy that everything goes through; None for none, whatever HTTPS_PROXY says."""
    offline: bool = False
    """Nothing is fetched at all."""
    ca_bundle: str | None = None
    """Certificates to trust instead of the usual ones."""
    clock: Callable[[], float] = field(default=time.time, repr=False)
    monotonic: Callable[[], float] = field(default=time.monotonic, repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    resolver: Resolver = field(default=system_resolver, repr=False)
    free_space: Callable[[Path], int] = field(default=free_space, repr=False)
    machine: str = field(default_factory=platform.node, repr=False)
    """This machine's name; no other one that writes to the same folder may have it."""

    def check_room(self, folder: Path, needed: int) -> None:
        """See that a folder's disk takes so many bytes, and keeps what must stay free.

        Raises:
            NoRoomError: it does not.
        """
        free = self.free_space(folder)
        if free < needed + self.reserve_bytes:
            raise NoRoomError(
                f"{folder}: {needed} bytes are needed, {free} are free and {self.reserve_bytes} "
                "must stay free. Free some space.",
                needed=needed,
                free=free,
            )

    @property
    def apart(self) -> str:
        """What is in the names of files that are not whole yet.

        A lock holds between the processes of a machine, and on some network drives no further: two
        machines must never write to one file.
        """
        return hashlib.sha256(self.machine.encode()).hexdigest()[:8]

    @classmethod
    def from_environment(
        cls,
        environ: Mapping[str, str],
        *,
        token_file: Path | None = None,
        login: Callable[[], str | None] = hub_login,
    ) -> Settings:
        """Read the settings that the environment can change.

        Args:
            environ: Usually ``os.environ``.
            token_file: Where tokens are looked for when ``FLUX_HOTSWAP_TOKENS`` is not set.
            login: See `load`.

        Raises:
            SettingsError: a variable or the token file cannot be used; the message names it.
        """
        base = cls()
        hub = environ.get("HF_ENDPOINT", "").strip().rstrip("/") or base.endpoints.hub
        if not hub.startswith(("https://", "http://")):
            raise SettingsError(
                "HF_ENDPOINT is no web address. Write it as in https://huggingface.co"
            )
        endpoints = Endpoints(hub=hub, civitai_twin=CIVITAI_TWIN)
        return cls(
            endpoints=endpoints,
            tokens=load(
                environ,
                hub=endpoints.hub,
                civitai=endpoints.civitai,
                replicate_api=endpoints.replicate_api,
                default_file=token_file,
                login=login,
            ),
            allow=AllowList.parse(environ.get("FLUX_HOTSWAP_ALLOW_HOSTS", "")),
            max_bytes=_size(environ, "FLUX_HOTSWAP_MAX_SIZE", base.max_bytes),
            cache_bytes=_size(environ, "FLUX_HOTSWAP_CACHE_SIZE", base.cache_bytes),
            recheck_after=_hours(environ, "FLUX_HOTSWAP_RECHECK_HOURS", base.recheck_after),
            proxy=proxy_of(environ),
            offline=_switch(environ, "FLUX_HOTSWAP_OFFLINE"),
            ca_bundle=environ.get("REQUESTS_CA_BUNDLE") or environ.get("SSL_CERT_FILE") or None,
        )


def parse_size(text: str) -> int:
    """Read a size such as ``500M``, ``20G`` or a count of bytes.

    Raises:
        ValueError: it is none.
    """
    number = text.strip().upper().removesuffix("B").removesuffix("I")
    unit = number[-1:] if number[-1:].isalpha() else ""
    if unit not in _UNITS:
        raise ValueError(text)
    size = float(number.removesuffix(unit)) * _UNITS[unit]
    if not 0 <= size < 2**63:
        raise ValueError(text)
    return int(size)


def _size(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "").strip()
    try:
        return parse_size(text) if text else default
    except ValueError:
        raise SettingsError(f"{name} is {text!r}: write a size such as 500M or 20G.") from None


def _switch(environ: Mapping[str, str], name: str) -> bool:
    text = environ.get(name, "").strip().lower()
    if text not in {*_ON, *_OFF}:
        raise SettingsError(f"{name} is {text!r}: write 1 or 0.")
    return text in _ON


def _hours(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "").strip()
    try:
        hours = float(text) if text else default / 3600
    except ValueError:
        hours = -1.0
    if not hours >= 0:
        raise SettingsError(f"{name} is {text!r}: write a number of hours, 0 or more.")
    return hours * 3600
