"""How files of clients and pictures go out: what they are by their bytes, and as what."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import quote

from aiohttp import web

OCTETS: Final = "application/octet-stream"
START: Final = 16
"""So many bytes tell what a file is."""

_STARTS: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"PK\x03\x04", "application/zip"),
    (b"PK\x05\x06", "application/zip"),
)


def content_type(start: bytes) -> str:
    """Return what a file is by its first bytes; what a client says of it counts for nothing.

    Args:
        start: its first `START` bytes, or all of a shorter one.
    """
    for signature, found in _STARTS:
        if start.startswith(signature):
            return found
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "image/webp"
    # Two letters alone are a word's as well: the four bytes after the length are always zero.
    if start[:2] == b"BM" and start[6:10] == bytes(4):
        return "image/bmp"
    return OCTETS


def type_of(path: Path) -> str:
    """Return what a file is by its first bytes.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return content_type(file.read(START))


def file_response(path: Path, kind: str, name: str) -> web.FileResponse:
    """Return the answer that sends a file: a picture to be shown, all else to be saved.

    Args:
        path: where it lies; aiohttp answers 404 if it has gone meanwhile.
        kind: its content type, found by its bytes.
        name: what it is to be called where it is saved.
    """
    shown = "inline" if kind.startswith("image/") else "attachment"
    headers = {
        "Content-Type": kind,
        "Content-Disposition": f"{shown}; filename*=UTF-8''{quote(name, safe='')}",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cache-Control": "private, max-age=3600, immutable",
    }
    return web.FileResponse(path, headers=headers)
