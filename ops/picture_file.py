"""Files of pictures to pixels, whoever sent them: few formats, bounded memory, damage told.

What ComfyUI's Load Image opens of these formats is opened: large texts, broken EXIF and cut files
included. Its way there, a switch of Pillow that holds for the whole process, is not used.
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import ImageError

FILE_LIMIT: Final = 64 * 2**20
"""Most bytes of a file."""

SIDE_LIMIT: Final = 2**16
"""Most pixels of a side: tables of a resize grow with it."""

MEMORY: Final = 192 * 10**6
"""Most bytes that decoding may take; the file and what is made of the pixels come beside it."""

COPIED: Final = 24_500_000
"""Most pixels that are worked on at full size; larger pictures are halved (or more) first."""

_STRIP: Final = 2**20
"""Pixels that are converted at a time."""

_SCAN_LIMIT: Final = 1000
"""Most passes of a JPEG over its pixels: each costs time, hardly a byte, and people's have ten."""

_SIGNATURES: Final = (
    ("PNG", b"\x89PNG\r\n\x1a\n"),
    ("JPEG", b"\xff\xd8\xff"),
    ("WEBP", b"RIFF"),
    ("GIF", b"GIF87a"),
    ("GIF", b"GIF89a"),
    ("BMP", b"BM"),
    ("TIFF", b"II*\0"),
    ("TIFF", b"MM\0*"),
)
"""The formats that are opened, by Pillow's names. None of them starts another program."""

_WEBP_BYTES: Final = 14.4
"""Bytes a pixel that count for WebP (it takes 16, and no other copy is there at that time)."""

_TIFF_BYTES: Final = 8
_TIFF_PACKINGS: Final = (
    *("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "jpeg"),
    *("tiff_ccitt", "group3", "group4"),
)
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_MODE_BYTES: Final = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
_DEEP_GREYS: Final = ("I;16", "I;16B", "I;16L", "I;16N", "I")

_PNG_NEEDS: Final = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf"))
_PNG_TURNS: Final = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
_PNG_TEXT: Final = 2**16
_PNG_CHUNKS: Final = 2**17
"""Most parts of a PNG that are looked at: empty ones cost time, hardly a byte."""

Warn = Callable[[str], None]


def open_flat(
    data: bytes, name: str, flat: Callable[[Image.Image], Image.Image], *, smooth: bool, warn: Warn
) -> tuple[Image.Image, int]:
    """Return the first picture of a file, upright and of 8 bits a channel, and its true pixels.

    Args:
        data: the file's bytes: PNG, JPEG, WebP, GIF, BMP or TIFF.
        name: what to call it in an error.
        flat: converts a strip of it, to RGB or L.
        smooth: whether one of more than `COPIED` pixels is shrunk by averaging them.
        warn: told what is damaged and opened all the same.

    Raises:
        ImageError: none of these formats, no pixels in it, or too large.
    """
    picture, pixels, problem = _decoded(_kind(data, name), data, name)
    if problem:
        warn(
            f"{name}: the file is damaged or cut short ({problem}); what is missing of it is blank"
        )
    method = _turned(picture)
    made = _flattened(picture, flat, smooth=smooth)
    del picture  # a decoder may hold four times its pixels
    return (made if method is None else made.transpose(method)), pixels


def upright_size(data: bytes, name: str = "image") -> tuple[int, int]:
    """Return (width, height) in pixels of the first picture of a file, turned upright.

    Args:
        data: the file's bytes: PNG, JPEG, WebP, GIF, BMP or TIFF.
        name: what to call it in an error.

    Raises:
        ImageError: none of these formats, damaged, or too large.
    """
    kind = _kind(data, name)
    # A PNG may say behind its pixels how it is turned.
    picture = _decoded(kind, data, name)[0] if kind == "PNG" else _opened(kind, data, name)
    width, height = picture.size
    if kind == "TIFF":  # which some versions of Pillow turn by themselves, and then say so still
        width, height = (picture.getexif().get(tag, 0) for tag in (_WIDTH, _HEIGHT))
    sideways = _turned(picture) in _SIDEWAYS
    if width * height == 0:
        raise ImageError(f"{name}: the picture has no pixels; save it again")
    return (height, width) if sideways else (width, height)


def _opened(kind: str, data: bytes, name: str) -> Image.Image:
    """Return a picture of which the header was read."""
    try:
        return Image.open(io.BytesIO(data), formats=[kind])
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: too large to open ({error}); make it smaller") from error
    except Exception as error:  # Pillow raises anything on damaged files
        raise ImageError(f"{name}: cannot be read ({_words(error)}); save it again") from error


def on_white(picture: Image.Image) -> Image.Image:
    """Return an RGB picture; what is transparent lies on white."""
    picture = _eight_bit(picture)
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def as_grey(picture: Image.Image) -> Image.Image:
    """Return the colours of a picture as grey, whatever its alpha says."""
    return _eight_bit(picture).convert("RGB").convert("L")


def strips(picture: Image.Image, step: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """Yield a picture from the top down in parts, each with its first row.

    Args:
        picture: of any mode.
        step: each part but the last has a multiple of so many rows.
    """
    rows = max(1, _STRIP // (picture.width * step)) * step
    for top in range(0, picture.height, rows):
        yield top, picture.crop((0, top, picture.width, min(top + rows, picture.height)))


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Return a picture of 8 bits a channel; Pillow's own conversion clips deeper greys."""
    if picture.mode in _DEEP_GREYS:
        values = np.asarray(picture).astype(np.float64)
        return Image.fromarray(np.clip(np.rint(values / 257), 0, 255).astype(np.uint8))
    if picture.mode == "F":
        values = np.nan_to_num(np.asarray(picture)) * 255
        return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
    return picture


def _flattened(
    picture: Image.Image, flat: Callable[[Image.Image], Image.Image], *, smooth: bool
) -> Image.Image:
    """Return a picture converted strip by strip, halved (or more) if it is very large."""
    factor = _factor(*picture.size)
    as_it_is = picture.mode == "RGB" and not picture.has_transparency_data and flat is on_white
    if factor == 1 and as_it_is and picture.format != "WEBP":
        return picture
    width, height = (-(-side // factor) for side in picture.size)
    parts = strips(picture, factor)
    _, first = next(parts)
    made = Image.new(flat(first).mode, (width, height))
    for top, part in itertools.chain([(0, first)], parts):
        strip = flat(part)
        if factor > 1 and smooth:
            strip = strip.reduce(factor)
        elif factor > 1:
            strip = strip.resize((width, -(-strip.height // factor)), Image.Resampling.NEAREST)
        made.paste(strip, (0, top // factor))
    return made


def _factor(width: int, height: int) -> int:
    factor = 1
    while width * height > COPIED * factor * factor:
        factor += 1
    return factor


# --- opening ---


def _kind(data: bytes, name: str) -> str:
    """Return Pillow's name of the format.

    Raises:
        ImageError: it is none of ours, or the file is too large.
    """
    if len(data) > FILE_LIMIT:
        raise ImageError(
            f"{name}: the file has more than {FILE_LIMIT // 2**20} MB; save it as JPEG or smaller"
        )
    found = next((kind for kind, start in _SIGNATURES if data.startswith(start)), None)
    if found is None or (found == "WEBP" and data[8:12] != b"WEBP"):
        raise ImageError(f"{name}: not a picture; give a PNG, JPEG, WebP, GIF, BMP or TIFF")
    return found


def _decoded(kind: str, data: bytes, name: str) -> tuple[Image.Image, int, str]:
    """Return a decoded picture, how many pixels it has, and what is wrong with its file.

    Raises:
        ImageError: it has no pixels, or too many.
    """
    picture, pixels, problem = _try(kind, data, name)
    if picture is not None and not problem:
        return picture, pixels, ""
    if kind in ("PNG", "JPEG"):
        del picture  # before the next one takes the same memory
        whole = _without_texts(data) if kind == "PNG" else data + b"\xff\xd9"
        picture, pixels, second = _try(kind, whole, name)
        # Texts mean nothing here; an end that had to be added to a JPEG means that some is missing.
        problem = second if kind == "PNG" else problem
    if picture is None:
        raise ImageError(f"{name}: cannot be read ({problem}); save it again")
    return picture, pixels, problem


def _try(kind: str, data: bytes, name: str) -> tuple[Image.Image | None, int, str]:
    """Return what can be had of a picture, how many pixels it has, and what went wrong.

    Raises:
        ImageError: it has too many pixels.
    """
    try:
        picture = Image.open(io.BytesIO(data), formats=[kind])
        pixels = picture.width * picture.height
        _check_cost(kind, picture, data, name)
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: too large to open ({error}); make it smaller") from error
    except Exception as error:  # noqa: BLE001 - Pillow raises anything on damaged files
        return None, 0, _words(error)
    parts = picture.tile
    try:
        picture.load()
        return picture, pixels, ""
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        problem = _words(error)
    if not parts or any(part[0] == "libtiff" for part in parts):
        return None, pixels, problem
    try:
        picture.tile = []  # what has been decoded so far is all that there is
        picture.load()
        if kind == "TIFF":
            picture.load_end()  # turns it, as at the end of a whole one
    except Exception:  # noqa: BLE001 - nothing has been
        return None, pixels, problem
    return picture, pixels, problem


def _words(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # whose words name an object in memory
        return "its head is damaged"
    return f"{error}" or type(error).__name__


def _check_cost(kind: str, picture: Image.Image, data: bytes, name: str) -> None:
    """Refuse a picture by its header, or make its decoder shrink it.

    Raises:
        ImageError: its pixels would take too much memory.
    """
    width, height = picture.size
    cost = _MODE_BYTES.get(picture.mode, 4)
    if kind == "WEBP":
        cost = _WEBP_BYTES
    elif kind == "TIFF":
        cost = _TIFF_BYTES
        _check_tiff(picture, name)
    elif kind == "JPEG":
        cost = _draft(picture, data, name)
    allowed = int(MEMORY / cost) if cost else width * height
    if max(width, height) > SIDE_LIMIT or width * height > allowed:
        raise ImageError(
            f"{name}: {width}x{height} is too large to open as {kind}; at most "
            f"{allowed // 10**6} megapixels and {SIDE_LIMIT} pixels a side. Make it smaller"
        )


def _check_tiff(picture: Image.Image, name: str) -> None:
    from PIL.TiffImagePlugin import TiffImageFile  # ComfyUI starts without it

    packing = picture.info.get("compression", "raw")
    if packing not in _TIFF_PACKINGS:
        raise ImageError(f"{name}: a TIFF packed as {packing} is not read; save it as PNG")
    if isinstance(picture, TiffImageFile):
        sides = [picture.tag_v2.get(tag, 1) for tag in (_TILE_WIDTH, _TILE_LENGTH)]
        if not all(isinstance(side, int) and side <= SIDE_LIMIT // 16 for side in sides):
            raise ImageError(f"{name}: a TIFF of very large tiles is not read; save it as PNG")


def _draft(picture: Image.Image, data: bytes, name: str) -> float:
    """Make a JPEG's decoder shrink it if it is very large; what it takes in bytes a pixel."""
    if data.count(b"\xff\xda") > _SCAN_LIMIT:
        raise ImageError(f"{name}: a JPEG of more than {_SCAN_LIMIT} scans; save it again")
    width, height = picture.size
    factor = _factor(width, height)
    if factor > 1:
        picture.draft(None, (max(1, width // factor), max(1, height // factor)))
    if _single_scan(data):
        return 4 * picture.width * picture.height / (width * height)
    sampling = [(across, down) for _, across, down, _ in getattr(picture, "layer", [])]
    most = max((across * down for across, down in sampling), default=1)
    # Until the last scan is there, libjpeg keeps two bytes for each value of the full size.
    return 2 * sum(across * down for across, down in sampling) / most


def _single_scan(data: bytes) -> bool:
    """Tell whether a JPEG's decoder can work row by row, with next to no memory."""
    position, components = 2, 0
    while position + 5 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xDA:
            return data[position + 4] == components
        if marker == 0xFF:  # padding
            position += 1
            continue
        if marker in (0xC0, 0xC1) and position + 9 < len(data):
            components = data[position + 9]
        (length,) = struct.unpack(">H", data[position + 2 : position + 4])
        position += 2 + length
    return False


def _without_texts(data: bytes) -> bytes:
    """Return a PNG without what its pixels do not need: Pillow refuses it for a large text."""
    pieces = [data[:8]]
    position = 8
    for _ in range(_PNG_CHUNKS):
        length, kind = struct.unpack(">I4s", data[position : position + 8].ljust(8, b"\0"))
        if not kind.isalpha():  # the end, or what is no chunk
            break
        chunk = memoryview(data)[position : position + 12 + length]
        if kind in _PNG_NEEDS or (
            kind in (b"iTXt", b"tEXt", b"zTXt")
            and length <= _PNG_TEXT
            and chunk[8:40].tobytes().startswith(_PNG_TURNS)
        ):
            sound = kind[0] < ord("a") or chunk[-4:] == struct.pack(">I", zlib.crc32(chunk[4:-4]))
            pieces += [chunk.tobytes()] * sound
        position += 12 + length
    return b"".join(pieces)


def _turned(picture: Image.Image) -> Image.Transpose | None:
    """Return how a decoded picture has to be turned; broken EXIF turns nothing."""
    try:
        orientation = picture.getexif().get(0x0112, 1)
    except Exception:  # noqa: BLE001 - Pillow raises anything on broken EXIF; viewers ignore it
        return None
    return _TURNS.get(orientation)


_WIDTH, _HEIGHT = 0x0100, 0x0101

_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By EXIF orientation."""

_SIDEWAYS: Final = [_TURNS[orientation] for orientation in (5, 6, 7, 8)]
