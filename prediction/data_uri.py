"""data: URIs (RFC 2397)."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_to_bytes


def is_data_uri(text: str) -> bool:
    """Tell whether text is a data: URI."""
    return text[:5].lower() == "data:"


def read_data_uri(uri: str) -> bytes:
    """Return the data of a data: URI.

    Raises:
        ValueError: it has no data, or its base64 is broken.
    """
    header, comma, body = uri.partition(",")
    if not comma:
        raise ValueError("a data: URI needs a comma before its data")
    try:
        data = unquote_to_bytes(body)
    except UnicodeEncodeError as error:
        raise ValueError("a data: URI holds a broken character") from error
    if not header.lower().endswith(";base64"):
        return data
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ValueError(f"broken base64: {error}") from error
