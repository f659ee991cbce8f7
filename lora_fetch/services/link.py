"""A web address of a file, on any host; a link that a file host hands out for people, too."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from ...errors import NotThisWayError
from ...files.addresses import bare_url
from ...files.explain import Asked
from ...files.validators import validator
from ..api import Api, Resolved
from ..source import OTHER_FILES, Address, Service, Source
from .shares import DRIVE, direct, page_hint

__all__ = ["SERVICE", "AskedLink", "Link", "Tar", "named_in"]

_SAFE = "/%:@!$&'()*+,;=~"
_HASH = re.compile(r"sha256[=:]([0-9a-f]{64})", re.IGNORECASE)
_ENDING = re.compile(r"\.(?:safetensors|tar)(?![\w.-])", re.IGNORECASE)
_BEFORE_NAME = re.compile(r"[/\\\"';=]")


@dataclass(frozen=True)
class AskedLink(Asked):
    """An address, and what it means where that shows a page; the same for every service."""

    def page_hint(self, _url: str) -> str:
        """What to do where an address shows a web page."""
        return page_hint(_url)


@dataclass(frozen=True)
class Link(Source):
    """A web address of a .safetensors file."""

    kind: ClassVar[str] = "link"

    url: str
    sha256: str | None = None

    @property
    def moving(self) -> bool:
        """What an address serves can change, unless its hash is given."""
        return self.sha256 is None

    @property
    def label(self) -> str:
        """Readable start of a file name."""
        return _stem(self.url)

    @property
    def unpinned(self) -> str:
        """Why ``#sha256=`` at the end of its text pins nothing; empty where it does."""
        return "" if self.sha256 else "after #sha256= there must be 64 hexadecimal digits"

    def canonical(self) -> str:
        """The one spelling of this source."""
        return self.url + (f"#sha256={self.sha256}" if self.sha256 else "")

    def shown(self) -> str:
        """The address without its query, which can hold a signature."""
        return bare_url(self.url)

    def asked(self) -> Asked:
        """What it is called in messages, and what the server's refusals mean."""
        return AskedLink(self.shown())

    def resolve(self, api: Api, *, probe: bool) -> Resolved:
        """The address itself, and its present state if that is wanted."""
        name = named_in(self.url) or unquote(urlsplit(self.url).path.rsplit("/", 1)[-1])
        revision = None
        if probe:
            answer = api.look("GET", self.url, headers={"Range": "bytes=0-0"}, follow=True)
            revision = validator(answer)
        return Resolved(
            url=self.url,
            tar=isinstance(self, Tar),
            name=name,
            sha256=self.sha256,
            revision=revision,
        )


@dataclass(frozen=True)
class Tar(Link):
    """A web address of a tar with one .safetensors file in it, as Replicate's trainer makes."""

    kind: ClassVar[str] = "tar"

    @property
    def moving(self) -> bool:
        """Replicate's deliveries never change."""
        host = urlsplit(self.url).hostname or ""
        delivery = host == "replicate.delivery" or host.endswith(".replicate.delivery")
        return self.sha256 is None and not delivery


def named_in(url: str) -> str:
    """The name of the .safetensors or .tar file that an address gives, or an empty text.

    It is the end of the path, or stands in the query, as in ``?file=a.safetensors`` and in the
    ``response-content-disposition`` of signed addresses.
    """
    parts = urlsplit(url)
    last = unquote(parts.path).rsplit("/", 1)[-1]
    if last.lower().endswith((".safetensors", ".tar")):
        return last
    for _, value in parse_qsl(parts.query):
        found = _ENDING.search(value)
        if found is not None:
            return unquote(_BEFORE_NAME.split(value[: found.end()])[-1])
    return ""


def _stem(url: str) -> str:
    parts = urlsplit(url)
    last = parts.path.rsplit("/", 1)[-1]
    for name in (last, named_in(url)):
        for suffix in (".safetensors", ".tar"):
            if name.lower().endswith(suffix):
                return name[: -len(suffix)] or parts.hostname or "lora"
    return last or parts.hostname or "lora"


def _page(address: Address) -> Link:
    """A link, if the address says what kind of file is behind it."""
    address = direct(address)
    path = quote(address.path, safe=_SAFE).rstrip("/")
    query = quote(address.query, safe=_SAFE + "?")
    url = f"{address.start}{path}" + (f"?{query}" if query else "")
    match = _HASH.fullmatch(address.fragment)
    sha256 = match[1].lower() if match else None
    name = named_in(url).lower()
    if name.endswith(".tar"):
        return Tar(url, sha256)
    if name.endswith(".safetensors") or address.site == DRIVE:
        return Link(url, sha256)
    if path.lower().endswith(OTHER_FILES):
        raise NotThisWayError(
            "only .safetensors files and plain .tar files are taken. Use one of those"
        )
    raise NotThisWayError(
        f"the address on {address.host} must end in .safetensors (or .tar). Copy the address of "
        "the download itself, not of a page"
    )


SERVICE = Service(sources=(Link, Tar), form="an https address of a .safetensors file", page=_page)
