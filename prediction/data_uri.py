"""data: URIs (RFC 2397), as people have them: wrapped, unpadded, in the alphabet of addresses."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

from ..errors import ImageError

DATA_LIMIT: Final = 64 * 2**20
"""Most bytes that a data: URI may hold."""

_TEXT_LIMIT: Final = DATA_LIMIT // 3 * 4 + 2**20
"""Longest data: URI in characters: base64 of `DATA_LIMIT`, its head and some line breaks."""

_ESCAPE_LIMIT: Final = 2**20
"""Most %XX in a data: URI; each costs far more memory and time than a plain character."""

_HEAD_LIMIT: Final = 4096
"""Characters among which the comma before the data is looked for."""

_SLICE: Final = 2**16
_BLANKS: Final = b" \t\r\n\v\f"
_FROM_URL: Final = bytes.maketrans(b"-_", b"+/")


def is_data_uri(text: str) -> bool:
    """Tell whether text is a data: URI."""
    return text[:5].lower() == "data:"


def check_data_uri(uri: str) -> None:
    """Look at the form of a data: URI alone, in next to no time however long it is.

    Raises:
        ValueError: it has no data, or too much.
    """
    if "," not in uri[:_HEAD_LIMIT]:
        raise ImageError("a data: URI needs a comma before its data; copy the whole of it")
    if len(uri) > _TEXT_LIMIT:
        raise ImageError(f"a data: URI may hold {DATA_LIMIT // 2**20} MB at most; use a file")
    if uri.count("%") > _ESCAPE_LIMIT:
        raise ImageError("a data: URI of so many escaped characters is not read; use base64")


def read_data_uri(uri: str) -> bytes:
    """Return the data of a data: URI.

    Base64 may be wrapped, unpadded, or hold - and _ for + and /.

    Raises:
        ValueError: it has no data or too much, or its base64 is broken.
    """
    check_data_uri(uri)
    header, _, body = uri.partition(",")
    try:
        data = b"".join(unquote_to_bytes(part) for part in _slices(body))
    except UnicodeEncodeError as error:
        raise ImageError("a data: URI holds a broken character; encode the file again") from error
    if not header.lower().rstrip().endswith(";base64"):
        return data
    digits = data.translate(_FROM_URL, delete=_BLANKS).rstrip(b"=")
    try:
        return base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except binascii.Error as error:
        raise ImageError(f"broken base64: {error}; encode the file again") from error


def _slices(text: str) -> Iterator[str]:
    """Yield text in pieces, no %XX cut in two: what takes memory for each escape stays small."""
    start = 0
    while start < len(text):
        end = start + _SLICE
        cut = text.find("%", end - 2, end)
        end = end if cut < 0 else cut
        yield text[start:end]
        start = end
