"""Text to `Source`: every spelling people paste, read without touching the network or the disk.

Case of scheme and host, spaces, quotes and brackets around, trailing slashes, ``www.`` and a
missing scheme are forgiven.
What is ambiguous is decided by a fixed rule or refused with the right form in the message.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import NoReturn
from urllib.parse import SplitResult, quote, unquote, unquote_to_bytes, urlsplit

from ..errors import SourceError
from .pasted import displayed, unwrapped, without_tokens
from .shares import Address, direct
from .sites import NotThisWayError, civitai_page, civitai_text, hub, replicate
from .source import DataURI, Link, LocalFile, Source, Tar, named_in

__all__ = ["parse"]

MAX_TEXT = 4096
MAX_DATA = 64 * 2**20
FORMS = (
    "Accepted are: owner/name (Replicate), hf:owner/name, a page or file of huggingface.co, "
    "a model of civitai.com, an https address of a .safetensors file, a file name of your loras "
    "folder."
)

_HOSTLIKE = re.compile(
    r"(?:(?:[^/\\:@?#.]+\.)+[^/\\:@?#.\d][^/\\:@?#.]+\.?|\d{1,3}(?:\.\d{1,3}){3}|localhost)(?::\d+)?",
    re.IGNORECASE,
)
_HUB_HOSTS = {"huggingface.co", "hf.co"}
_CIVITAI_HOSTS = {"civitai.com", "civitai.red", "civitai.green"}
_REPLICATE_HOSTS = {"replicate.com", "api.replicate.com"}
_KNOWN = {*_HUB_HOSTS, *_CIVITAI_HOSTS, *_REPLICATE_HOSTS}
_AIR = re.compile(r"(?:air:)?[a-z0-9_.+-]+:([a-z]+):([a-z]+):(.+)", re.IGNORECASE)
_AIR_TYPES = {"lora", "lycoris", "locon", "dora"}
_SAFE = "/%:@!$&'()*+,;=~"
_HASH = re.compile(r"sha256[=:]([0-9a-f]{64})", re.IGNORECASE)
_WEIGHTS = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".gguf", ".zip", ".tar.gz", ".tgz", ".7z")


def parse(text: str) -> Source:
    """Read what the user wrote into the LoRA field.

    Args:
        text: One source in any of the accepted forms.

    Returns:
        The source; its ``canonical()`` parses to an equal value.

    Raises:
        SourceError: the text names no source. It says what was understood and shows a right form.
    """
    text = unwrapped(text)
    if text[:5].lower() == "data:":
        return _data(text[5:])
    _readable(text)
    try:
        source = _dispatch(text)
        _pinned_as_asked(text, source)
    except NotThisWayError as error:
        _fail(text, str(error))
    return source


def _pinned_as_asked(text: str, source: Source) -> None:
    """Nobody shall believe that a hash is compared when it is not."""
    if not text.partition("#")[2].lower().startswith("sha256") or isinstance(source, LocalFile):
        return
    if not isinstance(source, Link):
        raise NotThisWayError(
            "#sha256= goes after the address of a file elsewhere. To pin a file of this service, "
            "write a version or a commit"
        )
    if source.sha256 is None:
        raise NotThisWayError("after #sha256= there must be 64 hexadecimal digits")


def _readable(text: str) -> None:
    if not text:
        raise SourceError(f"The LoRA field is empty. {FORMS}")
    if len(text) > MAX_TEXT:
        _fail(text, f"it is longer than {MAX_TEXT} signs. {FORMS}")
    if not text.isprintable():
        _fail(
            text, "it holds signs that cannot be seen, such as a line break. Write it on one line"
        )


def _dispatch(text: str) -> Source:
    head, colon, rest = text.partition(":")
    prefixed = _PREFIXES.get(head.strip().lower()) if colon else None
    if prefixed is not None:
        return prefixed(rest.strip())
    if text.lower().startswith(("https://", "http://")):
        return _address(text)
    if "://" in text:
        raise NotThisWayError(f"only https addresses are fetched. {FORMS}")
    first, slash, _ = text.partition("/")
    first = first.split("?")[0]
    if _HOSTLIKE.fullmatch(first) and (slash or first.lower().removeprefix("www.") in _KNOWN):
        return _address(f"https://{text}")
    if text.lower().endswith(".safetensors") or "\\" in text or text.startswith(("/", "~")):
        return _local(text)
    if text.lower().endswith(_WEIGHTS):
        raise NotThisWayError("only .safetensors files are taken: the others can run code")
    return replicate(text.split("/"), link=False)


def _air(rest: str) -> Source:
    """An AIR, civitai's uniform name: ``urn:air:flux1:lora:civitai:<model>@<version>``."""
    match = _AIR.fullmatch(rest)
    if match is None:
        raise NotThisWayError(
            "an AIR looks like urn:air:flux1:lora:civitai:<model number>@<version number>"
        )
    kind, site, name = match[1].lower(), match[2].lower(), match[3]
    if kind not in _AIR_TYPES:
        raise NotThisWayError(f"this AIR names a {kind}, and a LoRA is needed")
    if site == "huggingface":
        return hub(name)
    if site != "civitai":
        raise NotThisWayError(f"AIRs of {site!r} are not understood, only civitai and huggingface")
    return civitai_text(re.split(r"[:.]", name, maxsplit=1)[0])


def _address(text: str) -> Source:
    try:
        parts = urlsplit(text)
        host, port = _host(parts), parts.port
    except ValueError:
        raise NotThisWayError("this is not a web address") from None
    if "@" in parts.netloc:
        raise NotThisWayError(
            "an address must not carry a user name or password. Put a token into the environment"
        )
    site = host.removeprefix("www.")
    if site in _KNOWN and port in (None, 80, 443):
        if site in _HUB_HOSTS:
            return hub(parts.path)
        if site in _CIVITAI_HOSTS:
            return civitai_page(parts.path, parts.query)
        return replicate(parts.path.split("/"), link=True)
    shared = direct(host, parts.path, parts.query) if port in (None, 80, 443) else None
    if shared is not None:
        return _link(f"https://{shared.host}", shared, parts.fragment)
    netloc = f"[{host}]" if ":" in host else host
    if port is not None and port != {"http": 80, "https": 443}[parts.scheme]:
        netloc += f":{port}"
    address = Address(host, parts.path, parts.query)
    return _link(f"{parts.scheme}://{netloc}", address, parts.fragment)


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


def _link(start: str, address: Address, fragment: str) -> Source:
    """A link, if the address says what kind of file is behind it."""
    path = quote(address.path, safe=_SAFE).rstrip("/")
    query = quote(address.query, safe=_SAFE + "?")
    url = f"{start}{path}" + (f"?{query}" if query else "")
    match = _HASH.fullmatch(fragment)
    sha256 = match[1].lower() if match else None
    name = named_in(url).lower()
    if name.endswith(".tar"):
        return Tar(url, sha256)
    if name.endswith(".safetensors") or address.nameless:
        return Link(url, sha256)
    if path.lower().endswith(_WEIGHTS):
        raise NotThisWayError("only .safetensors files and plain .tar files are taken")
    raise NotThisWayError(
        f"the address on {address.host} must end in .safetensors (or .tar). Copy the address of "
        "the download itself, not of a page"
    )


def _local(text: str) -> LocalFile:
    name = text.strip().replace("\\", "/")
    if name.startswith(("/", "~")) or ":" in name:
        raise NotThisWayError(
            "a path outside the loras folders is not read. Put the file into ComfyUI's "
            "models/loras and give its name"
        )
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or not name.lower().endswith(".safetensors"):
        raise NotThisWayError("a local file is named like folder/name.safetensors, without '..'")
    return LocalFile("/".join(parts))


def _data(rest: str) -> DataURI:
    head, comma, body = rest.partition(",")
    if not comma:
        raise SourceError("data: needs a comma before the bytes, as in data:;base64,AAAA")
    if len(body) > MAX_DATA * 2:
        raise SourceError(f"data: is for small files, below {MAX_DATA // 2**20} MB. Use a link.")
    try:
        if head.lower().replace(" ", "").endswith(";base64"):
            data = _base64(unquote(body))
        else:
            data = unquote_to_bytes(body)
    except (ValueError, binascii.Error):
        raise SourceError("data: does not hold valid base64. Encode the file again.") from None
    if not 0 < len(data) <= MAX_DATA:
        raise SourceError(f"data: must hold 1 byte to {MAX_DATA // 2**20} MB. Use a link instead.")
    return DataURI(data)


def _base64(text: str) -> bytes:
    text = re.sub(r"\s+", "", text).rstrip("=").translate(str.maketrans("-_", "+/"))
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _plain_replicate(rest: str) -> Source:
    return replicate(rest.split("/"), link=False)


_PREFIXES: Mapping[str, Callable[[str], Source]] = {
    "replicate": _plain_replicate,
    "hf": hub,
    "huggingface": hub,
    "civitai": civitai_text,
    "local": _local,
    "urn": _air,
    "air": _air,
}


def _fail(text: str, why: str) -> NoReturn:
    shown = displayed(text)
    raise SourceError(f"{shown!r}: {without_tokens(why).rstrip('.')}.", text=shown)
