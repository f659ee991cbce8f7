"""data: URIs, which hold the bytes themselves."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import unquote, unquote_to_bytes

from ...errors import SourceError
from ..source import Service, Source

__all__ = ["SERVICE", "DataURI"]

MAX_DATA = 64 * 2**20


@dataclass(frozen=True)
class DataURI(Source):
    """The bytes themselves: a small .safetensors file, or a tar with one."""

    kind: ClassVar[str] = "data"

    data: bytes

    @property
    def moving(self) -> bool:
        """Bytes stand still."""
        return False

    @property
    def label(self) -> str:
        """Readable start of a file name."""
        return "data"

    def canonical(self) -> str:
        """The one spelling of this source."""
        return "data:application/octet-stream;base64," + base64.b64encode(self.data).decode()

    def shown(self) -> str:
        """What it is, instead of all of it."""
        return f"data:({len(self.data)} bytes, sha256 {hashlib.sha256(self.data).hexdigest()[:12]})"


def _whole(text: str) -> DataURI | None:
    """Read a data: URI. Its errors do not quote it: it is long, and tells nobody anything.

    Raises:
        SourceError: it is one, and broken.
    """
    if text[:5].lower() != "data:":
        return None
    head, comma, body = text[5:].partition(",")
    if not comma:
        raise SourceError("data: needs a comma before the bytes. Write data:;base64,AAAA")
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


SERVICE = Service(sources=(DataURI,), whole=_whole)
