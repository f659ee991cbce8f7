"""The size of a picture as it is shown, without its pixels where that is possible."""

from __future__ import annotations

import io
import random
import struct
import zlib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from flux_hotswap.errors import HotswapError, ImageError
from flux_hotswap.ops.picture_file import upright_size

ORIENTATION = 0x0112


def exif_bytes(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[ORIENTATION] = orientation
    exif[0x0131] = "Software"
    return exif.tobytes()


def encoded(kind: str, size: tuple[int, int], mode: str = "RGB", **options: Any) -> bytes:
    """Return a picture's file bytes: a gradient, so that lossy formats have something to code."""
    picture = Image.linear_gradient("L").resize(size).convert(mode)
    if mode in ("RGBA", "LA"):
        picture.putalpha(Image.linear_gradient("L").resize(size))
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def shown_size(data: bytes) -> tuple[int, int]:
    """Return the size that Pillow would show."""
    with Image.open(io.BytesIO(data)) as picture:
        return ImageOps.exif_transpose(picture).size


FILES: dict[str, bytes] = {
    "png": encoded("PNG", (37, 21)),
    "png gray": encoded("PNG", (37, 21), "L"),
    "png alpha": encoded("PNG", (37, 21), "RGBA"),
    "png palette": encoded("PNG", (37, 21), "P"),
    "png 1x1": encoded("PNG", (1, 1), "1"),
    "png large": encoded("PNG", (20_000, 3), "1"),
    "png turned": encoded("PNG", (37, 21), exif=exif_bytes(6)),
    "jpeg": encoded("JPEG", (37, 21)),
    "jpeg gray": encoded("JPEG", (37, 21), "L"),
    "jpeg cmyk": encoded("JPEG", (37, 21), "CMYK"),
    "jpeg progressive": encoded("JPEG", (37, 21), progressive=True),
    "jpeg 1x1": encoded("JPEG", (1, 1)),
    "jpeg large": encoded("JPEG", (20_000, 3), "L", quality=1),
    "jpeg turned": encoded("JPEG", (37, 21), exif=exif_bytes(8)),
    "jpeg comment, icc": encoded("JPEG", (37, 21), comment=b"\xff\xc0" * 9, icc_profile=bytes(99)),
    "webp": encoded("WEBP", (37, 21)),
    "webp lossless": encoded("WEBP", (37, 21), lossless=True),
    "webp alpha": encoded("WEBP", (37, 21), "RGBA"),
    "webp lossless alpha": encoded("WEBP", (37, 21), "RGBA", lossless=True),
    "webp 1x1": encoded("WEBP", (1, 1)),
    "webp large": encoded("WEBP", (16_383, 3), lossless=True),
    "webp turned": encoded("WEBP", (37, 21), exif=exif_bytes(5)),
    "webp turned lossless": encoded("WEBP", (37, 21), lossless=True, exif=exif_bytes(7)),
    "gif": encoded("GIF", (37, 21), "P"),
    "gif 1x1": encoded("GIF", (1, 1), "P"),
    "gif large": encoded("GIF", (20_000, 3), "P"),
    "bmp": encoded("BMP", (37, 21)),
    "bmp grey": encoded("BMP", (37, 21), "L"),
    "tiff": encoded("TIFF", (37, 21)),
    "tiff lzw": encoded("TIFF", (37, 21), compression="tiff_lzw"),
    "tiff turned": encoded("TIFF", (37, 21), tiffinfo={ORIENTATION: 6}),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_size(name: str) -> None:
    assert upright_size(FILES[name]) == shown_size(FILES[name])


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
    ],
    ids=["jpeg", "jpeg progressive", "png", "webp", "webp lossless"],
)
def test_orientation(kind: str, options: dict[str, Any], orientation: int) -> None:
    data = encoded(kind, (37, 21), exif=exif_bytes(orientation), **options)
    turned = (21, 37) if orientation in (5, 6, 7, 8) else (37, 21)
    assert upright_size(data) == turned == shown_size(data)


@pytest.mark.parametrize("name", FILES)
def test_cut_short(name: str) -> None:
    """A file cut anywhere has its right size or none: never another, never another error."""
    data = FILES[name]
    size = upright_size(data)
    ends = range(len(data)) if len(data) < 3000 else [*range(1000), len(data) - 1]
    wrong: dict[int, tuple[int, int]] = {}
    for end in ends:
        try:
            got = upright_size(data[:end])
        except ImageError:
            continue
        if got != size:
            wrong[end] = got
    assert not wrong


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"RIFF\0\0\0\0WEBP"])
def test_nothing_but_a_signature(data: bytes) -> None:
    with pytest.raises(ImageError):
        upright_size(data)


@pytest.mark.parametrize(
    "data", [b"hello", b"<svg/>", b"BM" + bytes(60), b"8BPS" + bytes(60), b"RIFF\0\0\0\0WAVEfmt "]
)
def test_other_files(data: bytes) -> None:
    with pytest.raises(
        ImageError, match=r"^mask: (not a picture; give a PNG|cannot be read)"
    ) as caught:
        upright_size(data, "mask")
    assert isinstance(caught.value, HotswapError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 0, 5) + bytes(9),
        b"\xff\xd8\xff\xc0" + struct.pack(">HBHH", 8, 8, 0, 5) + b"\0",
        b"GIF89a" + struct.pack("<HH", 5, 0) + bytes(3),
    ],
    ids=["png", "jpeg", "gif"],
)
def test_no_pixels(data: bytes) -> None:
    with pytest.raises(ImageError):
        upright_size(data)


# Where it stands how a picture is turned


def tiff(order: str, entries: list[tuple[int, int]], offset: int = 8) -> bytes:
    """Return EXIF data with a directory of SHORT entries at offset."""
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, offset)
    body = b"".join(struct.pack(order + "HHIHH", tag, 3, 1, value, 0) for tag, value in entries)
    return head.ljust(offset, b"\0") + struct.pack(order + "H", len(entries)) + body + bytes(4)


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_png_exif_after_the_pixels() -> None:
    data = FILES["png"]
    end = data.index(b"IEND") - 4
    turned = data[:end] + png_chunk(b"eXIf", tiff(">", [(ORIENTATION, 8)])) + data[end:]
    assert upright_size(turned) == (21, 37) == shown_size(turned)


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
RAW_PROFILE = b"\nexif\n      40\n" + tiff("<", [(ORIENTATION, 6)]).hex().encode() + b"\n"


def with_chunk(kind: bytes, body: bytes) -> bytes:
    data = FILES["png"]
    return data[:33] + png_chunk(kind, body) + data[33:]


@pytest.mark.parametrize(
    "data",
    [
        FILES["jpeg"][:2]
        + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
        + FILES["jpeg"][2:],
        encoded("WEBP", (37, 21), xmp=XMP),
        with_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        with_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
        with_chunk(b"tEXt", b"Raw profile type exif\0" + RAW_PROFILE),
        with_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(RAW_PROFILE)),
    ],
    ids=["jpeg", "webp", "png", "packed png", "profile", "packed profile"],
)
def test_other_places_that_turn_a_picture(data: bytes) -> None:
    assert upright_size(data) == (21, 37) == shown_size(data)


def test_a_gif_grows_to_hold_its_first_frame() -> None:
    data = bytearray(FILES["gif"])
    data[6:10] = struct.pack("<HH", 30, 40)
    assert upright_size(bytes(data)) == (37, 40) == shown_size(bytes(data))


def test_a_picture_that_is_cut_in_its_pixels_has_its_size() -> None:
    for name in ("png", "jpeg", "gif", "bmp"):
        assert upright_size(FILES[name][:-20]) == (37, 21)


# Anything at all

SIGNATURES = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"RIFF\0\0\0\0WEBP", b"GIF89a", b"GIF87a"]
STARTS = [
    *SIGNATURES,
    *(b"RIFF\0\0\0\0WEBP" + kind for kind in (b"VP8 ", b"VP8L", b"VP8X", b"EXIF")),
    b"\xff\xd8\xff\xe1",
    b"\xff\xd8\xff\xe1\0\x40Exif\0\0II*\0",
    b"\xff\xd8\xff\xc0\0\x0b\x08\0\x15\0\x25",
]


def only_sizes_or_image_errors(data: bytes) -> None:
    try:
        width, height = upright_size(data)
    except ImageError as error:
        assert str(error).startswith("image: ")
    else:
        assert width > 0
        assert height > 0


@given(st.sampled_from(STARTS), st.binary(max_size=200))
@example(b"\xff\xd8", b"\xff\xe0\0\0" * 40)
@example(b"RIFF\0\0\0\0WEBP", b"ABCD\xff\xff\xff\xff")
@example(b"\x89PNG\r\n\x1a\n", bytes(16) + b"\xff" * 8)
def test_random_bytes(start: bytes, rest: bytes) -> None:
    only_sizes_or_image_errors(start + rest)


@pytest.mark.parametrize("name", FILES)
def test_damaged_files(name: str) -> None:
    draw = random.Random(name)
    for _ in range(200):
        data = bytearray(FILES[name][:2000])
        for _ in range(draw.randint(1, 6)):
            data[draw.randrange(min(len(data), 120))] = draw.randrange(256)
        only_sizes_or_image_errors(bytes(data))
