"""Width, height and EXIF rotation of a picture, from the first bytes of its file.

A plan needs no pixels, only the size a viewer would show, so this reads headers with the standard
library: PNG, JPEG, WebP, GIF, BMP and TIFF. The pictures themselves are opened with Pillow
elsewhere, and come out in this size.
"""

from __future__ import annotations

import binascii
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Final

from ..errors import ImageError

_WIDTH_TAG: Final = 0x0100
_HEIGHT_TAG: Final = 0x0101
_ORIENTATION_TAG: Final = 0x0112
_XMP_TAG: Final = 0x02BC
_SHORT: Final = 3
_SIDEWAYS: Final = range(5, 9)
"""EXIF orientations that swap width and height."""

_FRAME_HEADERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG markers that carry the size (SOF0..SOF15 without DHT, JPG and DAC)."""

_XMP_ORIENTATION: Final = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_XMP_PREFIX: Final = b"http://ns.adobe.com/xap/1.0/\0"
_TEXT_LIMIT: Final = 2**20
"""Bytes of an unpacked text of a PNG that are looked at."""

_CHUNK_LIMIT: Final = 2**17
"""Most chunks of a PNG that are looked at: empty ones cost time, hardly a byte."""

_Read = tuple["tuple[int, int] | None", bytes, bytes]
"""Size as stored, EXIF and XMP."""


def upright_size(data: bytes, name: str = "image") -> tuple[int, int]:
    """Return (width, height) in pixels of the picture in data, turned upright.

    Args:
        data: the file's bytes.
        name: what to call the file in an error.

    Raises:
        ImageError: not one of these formats, or cut short before its size.
    """
    try:
        size, exif, xmp = _read(data)
    except (struct.error, IndexError) as error:
        raise ImageError(f"{name}: the picture is cut short; give the whole file") from error
    if size is None or 0 in size:
        raise ImageError(
            f"{name}: not a picture this can read; give a PNG, JPEG, WebP, GIF, BMP or TIFF"
        )
    width, height = size
    return (height, width) if _orientation(exif, xmp) in _SIDEWAYS else (width, height)


def _read(data: bytes) -> _Read:
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _read_png(data)
    if data[:2] == b"\xff\xd8":
        return _read_jpeg(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _read_webp(data)
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return _read_gif(data), b"", b""
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _read_tiff(data)
    if data[:2] == b"BM":
        return _read_bmp(data), b"", b""
    return None, b"", b""


def _read_png(data: bytes) -> _Read:
    size = struct.unpack(">II", data[16:24])
    exif = profile = xmp = b""
    begun = False
    for kind, body in _png_chunks(data):  # eXIf may stand anywhere before the end
        begun = begun or kind == b"IDAT"
        if kind == b"eXIf":
            exif = body
        elif kind == b"iTXt" and body.startswith(b"XML:com.adobe.xmp\0"):
            packed, rest = body[18:19] == b"\1", body[20:].split(b"\0", 2)[-1]
            xmp = _unpacked(rest) if packed else rest
        elif kind in (b"tEXt", b"zTXt") and body.startswith(b"Raw profile type exif\0"):
            profile = _profile(_unpacked(body[23:]) if kind == b"zTXt" else body[22:])
    if not begun:
        raise IndexError("it ends before its pixels")
    return size, exif or profile, xmp


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the chunks that are whole, and the pixels' if they begin; those without their body."""
    position = 8
    for _ in range(_CHUNK_LIMIT):
        if position + 12 > len(data):
            return
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        whole = position + 8 + length <= len(data)
        if kind == b"IEND" or not kind.isalpha() or not (whole or kind == b"IDAT"):
            return
        yield kind, b"" if kind == b"IDAT" else data[position + 8 : position + 8 + length]
        position += length + 12


def _unpacked(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, _TEXT_LIMIT)
    except zlib.error:  # a damaged text says nothing about the picture
        return b""


def _profile(text: bytes) -> bytes:
    """Return the EXIF in a text as ImageMagick writes it: three lines of heading, hex digits."""
    try:
        exif = binascii.unhexlify(b"".join(text.split(b"\n")[3:]))
    except binascii.Error:
        return b""
    return exif.removeprefix(b"Exif\0\0")


def _read_gif(data: bytes) -> tuple[int, int] | None:
    """Return the size of the screen, which grows to hold the first frame."""
    width, height, flags = struct.unpack("<HHB", data[6:11])
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while data[position : position + 1] == b"!":
        position += 2
        while data[position]:
            position += data[position] + 1
        position += 1
    kind, left, top, wide, high = struct.unpack("<cHHHH", data[position : position + 9])
    return (max(width, left + wide), max(height, top + high)) if kind == b"," else None


def _read_bmp(data: bytes) -> tuple[int, int]:
    (head,) = struct.unpack("<I", data[14:18])
    if head == 12:  # OS/2
        return struct.unpack("<HH", data[18:22])
    width, height = struct.unpack("<Ii", data[18:26])
    return width, abs(height)  # a height below zero: from the top down


def _read_tiff(data: bytes) -> _Read:
    order = "<" if data[:2] == b"II" else ">"
    (offset,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, offset)
    if offset + 2 + 12 * count > len(data):
        raise IndexError("its directory is not whole")
    tags = _tags(data)
    return (tags.get(_WIDTH_TAG, 0), tags.get(_HEIGHT_TAG, 0)), data, b""


def _read_jpeg(data: bytes) -> _Read:
    exif = xmp = b""
    size: tuple[int, int] | None = None
    for marker, segment in _jpeg_segments(data):
        if marker == 0xE1 and segment[:6] == b"Exif\0\0":
            exif += segment[6:]  # it may go on in another segment
        elif marker == 0xE1 and segment.startswith(_XMP_PREFIX):
            xmp = segment.removeprefix(_XMP_PREFIX)
        elif marker in _FRAME_HEADERS and size is None:
            height, width = struct.unpack(">HH", segment[1:5])
            size = width, height
    return size, exif, xmp


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and body of the segments before the pixels."""
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
        if marker == 0xDA:
            return
        yield marker, data[position + 4 : position + 2 + length]
        position += 2 + length


def _read_webp(data: bytes) -> _Read:
    (riff,) = struct.unpack("<I", data[4:8])
    if len(data) < 8 + riff:
        raise IndexError("the container ends early")  # its EXIF stands last
    size: tuple[int, int] | None = None
    position, exif, xmp = 12, b"", b""
    while position + 8 <= len(data):
        kind, length = struct.unpack("<4sI", data[position : position + 8])
        body = data[position + 8 : position + 8 + length]
        if size is None:
            size = _webp_size(kind, body)
        if kind == b"EXIF":
            exif = body.removeprefix(b"Exif\0\0")
        elif kind == b"XMP ":
            xmp = body
        position += 8 + length + length % 2
    return size, exif, xmp


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


def _orientation(exif: bytes, xmp: bytes) -> int:
    """Return how the picture is turned, 1 (upright) where nothing says so or it cannot be read."""
    tags = _tags(exif)
    if _ORIENTATION_TAG in tags:
        return tags[_ORIENTATION_TAG]
    offset = tags.get(_XMP_TAG, 0)  # only a TIFF keeps its XMP among the tags
    found = _XMP_ORIENTATION.search(xmp) or (offset and _XMP_ORIENTATION.search(exif, offset))
    return int(found[1]) if found else 1


def _tags(exif: bytes) -> dict[int, int]:
    """Return the numbers of a TIFF's or an EXIF's first directory.

    What is damaged is left out: it says nothing about the picture, and viewers ignore it too.
    """
    found: dict[int, int] = {}
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return found
    try:
        (offset,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, offset)
        for index in range(count):
            at = offset + 2 + 12 * index
            tag, kind = struct.unpack_from(order + "HH", exif, at)
            (value,) = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), exif, at + 8)
            found[tag] = value
    except struct.error:
        return found
    return found
