"""What a picture of a stranger costs: peak memory of a process of its own, for hostile files."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 400
"""Megabytes above what the process holds without the picture; the file's bytes count."""

# Started by the test with a file: decodes it, and prints how far its memory went up. The peak of
# getrusage would be that of the tests' process, which starts this one.
CHILD = """
import ctypes, json, re, sys, warnings
from pathlib import Path
sys.path.insert(0, sys.argv[1])
warnings.simplefilter("ignore")
from PIL import Image
Image.init()
from flux_hotswap.ops.picture import ImageError, decode_mask, decode_picture
from flux_hotswap.prediction.sizes import image_size

trim = ctypes.CDLL(None).malloc_trim  # what an earlier picture left counts for no later one

def held(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

def cost(path, decode, **options):
    trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before, said = held("VmRSS"), ""
    try:
        said = str(list(decode(Path(path).read_bytes(), "image", **options).shape))
    except ImageError as error:
        said = str(error)
    return held("VmHWM") - before, said

for path in map(str.strip, sys.stdin):
    fit = image_size(1000, 1000)
    print(json.dumps([
        *cost(path, decode_picture), *cost(path, decode_picture, fit=fit), *cost(path, decode_mask)
    ]), flush=True)
"""


def png(width: int, height: int, depth: int, colour: int, interlaced: int = 0) -> bytes:
    """A black PNG, a hundredth of its pixels' size or less, with as many texts as Pillow takes."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = bytes(1 + (width * samples * depth + 7) // 8)
    packer = zlib.compressobj(1)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    palette = chunk(b"PLTE", bytes(30)) + chunk(b"tRNS", b"\0") if colour == 3 else b""
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**20 - 1))) * (60 if depth == 8 else 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + text
        + palette
        + chunk(b"IDAT", body)
        + chunk(b"IEND", b"")
    )


def saved(kind: str, size: tuple[int, int], mode: str = "RGB", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, kind, **options)
    return stream.getvalue()


def jpeg(width: int, height: int, mode: str = "RGB", **options: Any) -> bytes:
    """A small JPEG that says it is large."""
    data = bytearray(saved("JPEG", (64, 64), mode, **options))
    frame = data.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def tiff(width: int, height: int, packing: int, body: bytes, more: dict[int, int]) -> bytes:
    """A TIFF of one strip or tile of 8 bit RGB, so large as its directory says."""
    at = 8 + len(body) + len(body) % 2
    tags = {256: width, 257: height, 258: 8, 259: packing, 262: 2, 277: 3, **more}
    if 322 in more:
        tags |= {324: 8, 325: len(body)}
    else:
        tags |= {273: 8, 278: height, 279: len(body)}
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    head = struct.pack("<2sHI", b"II", 42, at) + body + bytes(len(body) % 2)
    return head + struct.pack("<H", len(tags)) + rows + bytes(4)


def gif(width: int, height: int) -> bytes:
    data = bytearray(saved("GIF", (8, 8), "P"))
    at = data.index(b",")
    data[6:10] = data[at + 5 : at + 9] = struct.pack("<HH", width, height)
    return bytes(data)


def bmp(width: int, height: int) -> bytes:
    data = bytearray(saved("BMP", (8, 8)))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def large(data: bytes) -> bytes:
    """A file with so much behind its end that it is as large as one may be."""
    return data + bytes(60 * 2**20)


def large_webp(data: bytes) -> bytes:
    more = data[8:] + b"JUNK" + struct.pack("<I", 60 * 2**20) + bytes(60 * 2**20)
    return b"RIFF" + struct.pack("<I", len(more)) + more


ZEROS = zlib.compress(bytes(300 * 2**20))
TOO_LARGE, OPENED = "too large to open", "["

FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "png 9400x9400": (lambda: png(9400, 9400, 8, 2), TOO_LARGE),
    "png rgb": (lambda: png(6900, 6900, 8, 2), OPENED),
    "png rgba": (lambda: png(6900, 6900, 8, 6), OPENED),
    "png rgba, worked on at full size": (lambda: png(4900, 5000, 8, 6), OPENED),
    "jpeg cmyk progressive, full size": (
        lambda: large(jpeg(4890, 4900, "CMYK", progressive=True)),
        OPENED,
    ),
    "png rgba, kept": (lambda: png(3500, 3600, 8, 6), OPENED),
    "png palette": (lambda: png(13000, 13000, 8, 3), OPENED),
    "png palette, full size": (lambda: png(4900, 5000, 8, 3), OPENED),
    "png one bit": (lambda: png(13000, 13000, 1, 0), OPENED),
    "png 16 bit grey": (lambda: png(9700, 9700, 16, 0), OPENED),
    "png 16 bit rgba": (lambda: png(4900, 5000, 16, 6), OPENED),
    "png interlaced": (lambda: png(6900, 6900, 8, 2, 1), OPENED),
    "png of four million empty parts": (
        lambda: png(64, 64, 8, 2)[:33] + b"\0\0\0\0aaaa\0\0\0\0" * 2**22, "cannot be read",
    ),
    "png 1 pixel wide": (lambda: png(1, 2_000_000, 8, 2), TOO_LARGE),
    "png, 60 MB": (lambda: large(png(6900, 6900, 8, 6)), OPENED),
    "png cut short, 60 MB": (lambda: large(png(6900, 6900, 8, 6)[:-9000])[:-900], OPENED),
    "jpeg": (lambda: jpeg(13000, 13000), OPENED),
    "jpeg 65000x65000": (lambda: jpeg(65000, 65000), TOO_LARGE),
    "jpeg progressive 4:4:4": (lambda: jpeg(5600, 5600, progressive=True, subsampling=0), OPENED),
    "jpeg progressive, full size": (
        lambda: jpeg(4900, 5000, progressive=True, subsampling=0), OPENED,
    ),
    "jpeg progressive 4:2:0": (lambda: jpeg(8000, 8000, progressive=True), OPENED),
    "jpeg progressive, larger": (lambda: jpeg(9000, 9000, progressive=True), TOO_LARGE),
    "jpeg cmyk progressive": (lambda: jpeg(4890, 4890, "CMYK", progressive=True), OPENED),
    "jpeg cmyk progressive, 60 MB": (
        lambda: large(jpeg(4890, 4890, "CMYK", progressive=True)), OPENED,
    ),
    "webp": (lambda: saved("WEBP", (3650, 3650)), OPENED),
    "webp, 60 MB": (lambda: large_webp(saved("WEBP", (3650, 3650), "RGBA")), OPENED),
    "webp lossless alpha": (lambda: saved("WEBP", (3650, 3650), "RGBA", lossless=True), OPENED),
    "webp larger": (lambda: saved("WEBP", (16383, 1000)), TOO_LARGE),
    "gif": (lambda: gif(13000, 13000), OPENED),
    "gif 65535x65535": (lambda: gif(65535, 65535), TOO_LARGE),
    "bmp": (lambda: bmp(6900, 6900), OPENED),
    "bmp of two billion": (lambda: bmp(2**31 - 1, 1), TOO_LARGE),
    "tiff of one strip": (lambda: tiff(4890, 4890, 8, ZEROS, {}), OPENED),
    "tiff, 60 MB": (lambda: large(tiff(4890, 4890, 8, ZEROS, {})), OPENED),
    "tiff larger": (lambda: tiff(9400, 9400, 8, ZEROS, {}), TOO_LARGE),
    "tiff of a huge tile": (
        lambda: tiff(64, 64, 8, ZEROS, {322: 10240, 323: 10240}), "very large tiles",
    ),
    "tiff of zstd": (lambda: tiff(64, 64, 50000, b"", {}), "packed as zstd"),
}  # fmt: skip


@pytest.fixture(scope="module")
def child() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", CHILD, str(ROOT)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        yield process
        process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="waits for a way to tell a peak elsewhere")
@pytest.mark.parametrize("name", FILES)
def test_no_file_takes_more_than_400_mb(
    name: str, child: subprocess.Popen[str], tmp_path: Path
) -> None:
    make, expected = FILES[name]
    path = tmp_path / "picture"
    path.write_bytes(make())
    assert child.stdin
    assert child.stdout
    child.stdin.write(f"{path}\n")
    child.stdin.flush()
    found = json.loads(child.stdout.readline())
    assert max(found[::2]) < LIMIT, found
    assert all(expected in said for said in found[1::2]), found
