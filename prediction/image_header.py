"""Width, height and EXIF rotation of a picture, from the first bytes of its file.

A plan needs no pixels, only the size a viewer would show, so this reads headers with the standard
library: PNG, JPEG, WebP and GIF. The pictures themselves are opened with Pillow elsewhere.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from .errors import ImageError

_ORIENTATION_TAG: Final = 0x0112
_SIDEWAYS: Final = range(5, 9)
"""EXIF orientations that swap width and height."""

_FRAME_HEADERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG markers that carry the size (SOF0..SOF15 without DHT, JPG and DAC)."""


def upright_size(data: bytes, name: str = "image") -> tuple[int, int]:
    """Return (width, height) in pixels of the picture in data, turned upright.

    Args:
        data: the file's bytes.
        name: what to call the file in an error.

    Raises:
        ImageError: not a PNG, JPEG, WebP or GIF, or cut short.
    """
    try:
        size, exif = _read(data)
    except (struct.error, IndexError) as error:
        raise ImageError(f"{name}: the picture is cut short; give the whole file") from error
    if size is None or 0 in size:
        raise ImageError(f"{name}: not a picture this can read; give a PNG, JPEG, WebP or GIF")
    width, height = size
    return (height, width) if _orientation(exif) in _SIDEWAYS else (width, height)


def _read(data: bytes) -> tuple[tuple[int, int] | None, bytes]:
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _read_png(data)
    if data[:2] == b"\xff\xd8":
        return _read_jpeg(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _read_webp(data)
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return struct.unpack("<HH", data[6:10]), b""
    return None, b""


def _read_png(data: bytes) -> tuple[tuple[int, int], bytes]:
    size = struct.unpack(">II", data[16:24])
    position, kind, exif = 8, b"", b""
    while kind != b"IEND":  # eXIf may stand anywhere before it
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        if kind == b"eXIf":
            exif = data[position + 8 : position + 8 + length]
        position += length + 12
    return size, exif


def _read_jpeg(data: bytes) -> tuple[tuple[int, int] | None, bytes]:
    exif = b""
    for marker, segment in _jpeg_segments(data):
        if marker == 0xE1 and segment[:6] == b"Exif\0\0":
            exif = segment[6:]
        if marker in _FRAME_HEADERS:
            height, width = struct.unpack(">HH", segment[1:5])
            return (width, height), exif
    return None, exif


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 2
    while position < len(data):
        if data[position] != 0xFF:
            return
        marker = data[position + 1]
        if marker == 0xFF:  # padding
            position += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a body
            position += 2
            continue
        (length,) = struct.unpack(">H", data[position + 2 : position + 4])
        yield marker, data[position + 4 : position + 2 + length]
        position += 2 + length


def _read_webp(data: bytes) -> tuple[tuple[int, int] | None, bytes]:
    (riff,) = struct.unpack("<I", data[4:8])
    if len(data) < 8 + riff:
        raise IndexError("the container ends early")  # its EXIF stands last
    size: tuple[int, int] | None = None
    position, exif = 12, b""
    while position + 8 <= len(data):
        kind, length = struct.unpack("<4sI", data[position : position + 8])
        body = data[position + 8 : position + 8 + length]
        if size is None:
            size = _webp_size(kind, body)
        if kind == b"EXIF":
            exif = body.removeprefix(b"Exif\0\0")
        position += 8 + length + length % 2
    return size, exif


def _webp_size(kind: bytes, body: bytes) -> tuple[int, int] | None:
    if kind == b"VP8X":
        width, width_high, height, height_high = struct.unpack("<HBHB", body[4:10])
        return (width | width_high << 16) + 1, (height | height_high << 16) + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", body[1:5])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    return None


def _orientation(exif: bytes) -> int:
    """Return the EXIF orientation, 1 (upright) where there is none or it cannot be read."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (offset,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, offset)
        for index in range(count):
            tag, _kind, _number, value = struct.unpack_from(
                order + "HHIH", exif, offset + 2 + 12 * index
            )
            if tag == _ORIENTATION_TAG:
                return value
    except struct.error:  # damaged EXIF says nothing about the picture, viewers ignore it too
        return 1
    return 1
