"""Text to `Source`: every spelling people paste, read without touching the network or the disk.

Case of scheme and host, spaces, quotes and brackets around, trailing slashes, ``www.`` and a
missing scheme are forgiven.
What is ambiguous is decided by a fixed rule or refused with the right form in the message.
What the texts of each service look like is in `services`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NoReturn
from urllib.parse import SplitResult, urlsplit

from ..errors import NotThisWayError, SourceError
from .pasted import displayed, unwrapped, without_tokens
from .services import SERVICES
from .source import Address, Service, Source

__all__ = ["parse"]

MAX_TEXT = 4096

_HOSTLIKE = re.compile(
    r"(?:(?:[^/\\:@?#.]+\.)+[^/\\:@?#.\d][^/\\:@?#.]+\.?|\d{1,3}(?:\.\d{1,3}){3}|localhost)(?::\d+)?",
    re.IGNORECASE,
)


def parse(text: str, services: Sequence[Service] = SERVICES) -> Source:
    """Read what the user wrote into the LoRA field.

    Args:
        text: One source in any of the accepted forms.
        services: Whose texts are read, in the order in which they are asked.

    Returns:
        The source; its ``canonical()`` parses to an equal value.

    Raises:
        SourceError: the text names no source. It says what was understood and shows a right form.
    """
    text = unwrapped(text)
    whole = _first(service.whole(text) for service in services)
    if whole is not None:
        return whole
    _readable(text, services)
    try:
        source = _read(text, services)
        _pinned_as_asked(text, source)
    except NotThisWayError as error:
        _fail(text, str(error))
    return source


def _forms(services: Sequence[Service]) -> str:
    return f"Accepted are: {', '.join(service.form for service in services if service.form)}."


def _first(found: Iterable[Source | None]) -> Source | None:
    """What the first service reads that knows the text."""
    return next((source for source in found if source is not None), None)


def _pinned_as_asked(text: str, source: Source) -> None:
    """Nobody shall believe that a hash is compared when it is not."""
    if text.partition("#")[2].lower().startswith("sha256") and source.unpinned:
        raise NotThisWayError(source.unpinned)


def _readable(text: str, services: Sequence[Service]) -> None:
    if not text:
        raise SourceError(f"The LoRA field is empty. {_forms(services)}")
    if len(text) > MAX_TEXT:
        _fail(text, f"it is longer than {MAX_TEXT} signs. {_forms(services)}")
    if not text.isprintable():
        _fail(
            text, "it holds signs that cannot be seen, such as a line break. Write it on one line"
        )


def _read(text: str, services: Sequence[Service]) -> Source:
    head, colon, rest = text.partition(":")
    prefix = head.strip().lower() if colon else ""
    readers = [s.prefixes[prefix] for s in services if prefix in s.prefixes]
    if readers:
        found = _first(reader(rest.strip()) for reader in readers)
    elif text.lower().startswith(("https://", "http://")):
        found = _page(_address(text), services)
    elif "://" in text:
        raise NotThisWayError(f"only https addresses are fetched. {_forms(services)}")
    elif _is_address(text, services):
        found = _page(_address(f"https://{text}"), services)
    else:
        found = _first(service.bare(text) for service in services)
    if found is None:
        raise NotThisWayError(f"this names no LoRA. {_forms(services)}")
    return found


def _is_address(text: str, services: Sequence[Service]) -> bool:
    """Whether a text is an address without its scheme; a file can be named like a host."""
    first, slash, _ = text.partition("/")
    first = first.split("?")[0]
    site = first.lower().removeprefix("www.")
    known = any(site in service.sites for service in services)
    return _HOSTLIKE.fullmatch(first) is not None and (bool(slash) or known)


def _page(address: Address, services: Sequence[Service]) -> Source | None:
    own = (s for s in services if not s.sites or address.site in s.sites)
    return _first(service.page(address) for service in own)


def _address(text: str) -> Address:
    try:
        parts = urlsplit(text)
        host, port = _host(parts), parts.port
    except ValueError:
        raise NotThisWayError(
            "this is not a web address. Write https://host/folder/name.safetensors"
        ) from None
    if "@" in parts.netloc:
        raise NotThisWayError(
            "an address must not carry a user name or password. Put a token into the environment"
        )
    return Address(parts.scheme, host, port, parts.path, parts.query, parts.fragment)


def _host(parts: SplitResult) -> str:
    """The host in lower case and in ASCII.

    Raises:
        ValueError: there is none (UnicodeError is a ValueError).
    """
    host = parts.hostname or ""
    if ":" not in host:
        host = host.encode("idna").decode("ascii").lower().rstrip(".")
    if not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]*:[0-9a-f:.]*", host):
        raise ValueError(host)
    return host


def _fail(text: str, why: str) -> NoReturn:
    shown = displayed(text)
    raise SourceError(f"{shown!r}: {without_tokens(why).rstrip('.')}.", text=shown)
