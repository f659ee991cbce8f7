"""Reads and checks the head of a safetensors file without loading a single weight.

The format: eight bytes with the length of the head (little endian), the head as JSON (name to
dtype, shape and the span of its bytes), then the data, without a hole or an overlap.
Nothing of a file is trusted: every length is bounded before it is used.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NoReturn, cast

from ..errors import BadFileError

__all__ = ["PAGE", "Header", "Tensor", "looks_like", "read"]

PAGE = "a web page"
MAX_HEADER = 16 * 2**20  # the format allows 100 MB, which could cost gigabytes to read
MAX_TENSORS = 20_000
"""The largest LoRAs of FLUX have some thousands."""

_TENSOR_BYTES = 128
"""Bytes of JSON around the texts that describe a tensor, at most."""

_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
_MAGIC = (
    (b"PK\x03\x04", "a zip archive, as PyTorch's .pt and .ckpt pickles are"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a rar archive"),
    (b"GGUF", "a GGUF file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"version https://git-lfs", "a Git LFS pointer instead of the file itself"),
)


@dataclass(frozen=True)
class Tensor:
    """One tensor as the head describes it."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """The checked head of a file.

    Attributes:
        tensors: by their names.
        metadata: texts that were written beside them.
        head: the bytes before the data.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    head: bytes = field(repr=False)

    @property
    def base(self) -> int:
        """Where the data begins, in bytes."""
        return len(self.head)


def looks_like(head: bytes) -> str | None:
    """Say what a file's first bytes are, when they are certainly not a safetensors file.

    Args:
        head: The first bytes; a few hundred are enough.

    Returns:
        Words for an error message, or None when it may be a safetensors file.
    """
    if len(head) >= 9 and _length(head) <= MAX_HEADER and head[8:9] in b"{ ":
        return None
    for magic, words in _MAGIC:
        if head.startswith(magic):
            return words
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a Python pickle, which can run code when it is opened"
    if head[257:262] == b"ustar":
        return "a tar archive"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<body", b"<?xml", b"<!--", b"<script")):
        return PAGE
    if text.startswith((b'{"', b'["', b"{\n", b"{}")):
        return "a JSON text"
    return None


def read(path: Path, *, name: str | None = None) -> Header:
    """Read the head of a file and check all of it.

    Args:
        path: The file.
        name: What to call the file in an error; its own name if not given.

    Raises:
        BadFileError: it is not a sound safetensors file; the message says what is wrong.
        OSError: the file cannot be read.
    """
    label = name or path.name
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(512)
        kind = looks_like(first)
        if kind is not None:
            _bad(label, f"it is {kind}, not a safetensors file")
        if len(first) < 10:
            _bad(label, f"it is only {size} bytes long")
        length = _length(first)
        if length > MAX_HEADER:
            _bad(label, f"its head claims {length} bytes, more than any LoRA needs")
        if 8 + length > size:
            _bad(label, f"its head claims {length} bytes and the file has only {size}")
        file.seek(0)
        head = file.read(8 + length)
    return _parse(label, head, data=size - 8 - length)


def _length(head: bytes) -> int:
    return int(struct.unpack_from("<Q", head)[0])


def _parse(label: str, head: bytes, *, data: int) -> Header:
    document = _json(label, head[8:])
    metadata = _metadata(label, document.pop("__metadata__", {}))
    if len(document) > MAX_TENSORS:
        _bad(label, f"its head names {len(document)} tensors, more than any LoRA has")
    tensors = {key: _tensor(label, key, value) for key, value in document.items()}
    if not tensors:
        _bad(label, "it holds no tensors")
    position = 0
    for key, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start < position:
            _bad(label, f"the data of {_short(key)} overlaps other data")
        if tensor.start > position:
            _bad(label, f"there is a hole in the data before {_short(key)}")
        position = tensor.end
    if position != data:
        _bad(label, f"its tensors need {position} bytes of data and the file has {data}")
    return Header(tensors, metadata, head)


def _json(label: str, raw: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            _bad(label, "its head names the same thing twice")
        return found

    def constant(word: str) -> NoReturn:
        _bad(label, f"its head holds {word}")

    # A small text can stand for millions of values; metadata may be as long as it likes.
    if _outside_texts(raw) > MAX_TENSORS * _TENSOR_BYTES:
        _bad(label, "its head describes more than any LoRA holds")
    try:
        document = json.loads(
            raw.decode("utf-8"), object_pairs_hook=unique, parse_constant=constant
        )
    except BadFileError:
        raise
    except (ValueError, RecursionError):
        _bad(label, "its head is not valid JSON")
    if not isinstance(document, dict):
        _bad(label, "its head is not a JSON object")
    return cast("dict[str, Any]", document)


def _outside_texts(raw: bytes) -> int:
    """Bytes of a JSON document that are in none of its texts; any bytes take as long as others."""
    plain = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    return sum(map(len, plain.split(b'"')[::2]))  # each quote that is left begins or ends a text


def _metadata(label: str, value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        _bad(label, "its metadata is not a table of texts")
    table = cast("dict[str, object]", value)
    if not all(isinstance(text, str) for text in table.values()):
        _bad(label, "its metadata is not a table of texts")
    return cast("dict[str, str]", table)


def _tensor(label: str, key: str, value: object) -> Tensor:
    if not isinstance(value, dict):
        _bad(label, f"{_short(key)} is not described by an object")
    entry = cast("dict[str, object]", value)
    dtype = entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in _BITS:
        _bad(label, f"{_short(key)} has an unknown dtype {_short(str(dtype))}")
    shape = _counts(entry.get("shape"))
    span = _counts(entry.get("data_offsets"))
    if shape is None or len(shape) > 32:
        _bad(label, f"{_short(key)} has no sound shape")
    if span is None or len(span) != 2 or span[0] > span[1]:
        _bad(label, f"{_short(key)} has no sound data_offsets")
    if (span[1] - span[0]) * 8 != prod(shape) * _BITS[dtype]:
        _bad(label, f"the data of {_short(key)} does not have the size of its shape")
    return Tensor(dtype, shape, span[0], span[1])


def _counts(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list):
        return None
    items = cast("list[object]", value)
    counts = tuple(n for n in items if isinstance(n, int) and not isinstance(n, bool))
    if len(counts) != len(items) or any(not 0 <= n < 2**63 for n in counts):
        return None
    return counts


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _bad(label: str, why: str) -> NoReturn:
    raise BadFileError(
        f"{label} cannot be used: {why}. Check the source, or ask its author for a .safetensors "
        "file that is whole."
    )
