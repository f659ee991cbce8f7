"""Text that travels inside a picture: the graph that made it, as ComfyUI's editor reads it back.

PNG keeps one text chunk a key. WebP and JPEG keep one EXIF string a key, written `key:json`, in the
tags that ComfyUI uses. The text for other tools, `parameters`, is where those look: in PNG a text
chunk of its own, else EXIF's UserComment. Secrets, the home folder and the bytes of inputs never
get in (`redact`). Imports PIL, never comfy.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from PIL import ExifTags, Image, PngImagePlugin, TiffTags

from .redact import clean, clean_text

JPEG_EXIF_LIMIT = 65533
"""Bytes that fit in the one JPEG segment that EXIF may use."""

RECORD = "flux_hotswap"
"""Key of the record of what ran; with `parameters` it stays where the graph finds no room."""
PARAMETERS = "parameters"

_TAGS = {"prompt": ExifTags.Base.Model, "workflow": ExifTags.Base.Make}
_FIRST_FREE_TAG = ExifTags.Base.Make - 1
_KEY = re.compile(r"[ -9;-~]{1,79}")  # what a PNG keyword and an EXIF `key:` prefix can both hold
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""What no text in a file may hold: control characters but tab and line ends, half characters."""

_EXIF_HEADER = b"Exif\0\0"
_TIFF_HEADER = b"MM\0*\0\0\0\x08"
"""Big-endian, as the comment's UTF-16 is: some readers expect the same order in both."""
_UNICODE = b"UNICODE\0"
_Entry: TypeAlias = tuple[int, int, bytes]
"""Tag, TIFF type and value of one EXIF entry."""


@dataclass(frozen=True)
class Texts:
    """Keys and their JSON, what had to be left out, and the text for other tools."""

    items: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    parameters: str = ""


def pack(metadata: Mapping[str, object] | None, *, parameters: str = "", home: str = "") -> Texts:
    """Serialise metadata for embedding: ASCII JSON, without secrets.

    Args:
        metadata: `prompt`, `workflow` and any further key, each a JSON value. Not modified.
        parameters: A1111's text about the picture, of any characters; empty for none.
        home: the user's home folder; where it starts a path in a text it becomes `~`.

    Returns:
        One JSON text a key. NaN and infinity become null, because browsers refuse them. A key that
        no file format can hold, or a value that is not JSON, is left out with a warning.
        parameters is not JSON; in it U+FFFD stands for what files cannot hold, line ends stay.
    """
    items: dict[str, str] = {}
    warnings: list[str] = []
    for key, value in (metadata or {}).items():
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            warnings.append(f"metadata key {key!r:.60} cannot be stored in a picture; left out")
            continue
        if parameters and key == PARAMETERS:
            warnings.append("metadata key 'parameters' is taken by A1111's text; left out")
            continue
        try:
            items[key] = json.dumps(clean(value, home), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            warnings.append(f"metadata {key!r} is not JSON ({error!s:.80}); left out")
    return Texts(items, tuple(warnings), _CONTROL.sub("\ufffd", clean_text(parameters, home)))


def png_info(texts: Texts) -> PngImagePlugin.PngInfo | None:
    """Return the text chunks for Pillow's PNG writer, or None when there are none."""
    if texts == Texts(warnings=texts.warnings):
        return None
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items.items():
        info.add_text(key, value)
    if texts.parameters:
        info.add_text(PARAMETERS, texts.parameters)
        # The editor of ComfyUI 0.3.75 takes any file with `parameters` for A1111's and forgets the
        # graph in it. Of two it believes the last, and only ComfyUI reads chunks of type `comf`:
        # an empty one hides the text from it.
        info.add(b"comf", PARAMETERS.encode() + b"\0")
    return info


def exif(texts: Texts) -> bytes:
    """Return an EXIF block with one string a key, empty when there is nothing to embed.

    `prompt` goes to 0x0110 and `workflow` to 0x010F; other keys follow downwards, past the tags
    that TIFF defines as numbers. `parameters` goes to 0x9286 of the Exif directory, in UTF-16.
    """
    free = _free_tags()
    entries: list[_Entry] = []
    for key, value in texts.items.items():
        tag = _TAGS.get(key)
        text = f"{key}:{value}\0".encode("ascii", "replace")
        entries.append((next(free) if tag is None else tag, TiffTags.ASCII, text))
    if not texts.parameters:
        return _EXIF_HEADER + _TIFF_HEADER + _directory(entries) if entries else b""
    comment = _UNICODE + texts.parameters.encode("utf-16-be", "replace")
    pointer = (ExifTags.IFD.Exif, TiffTags.LONG)
    start = len(_TIFF_HEADER) + len(_directory([*entries, (*pointer, bytes(4))]))
    entries.append((*pointer, struct.pack(">I", start)))
    # Pillow's own writer would give the comment the type BYTE, which A1111 cannot read.
    inner = _directory([(ExifTags.Base.UserComment, TiffTags.UNDEFINED, comment)], start)
    return _EXIF_HEADER + _TIFF_HEADER + _directory(entries) + inner


def jpeg_exif(texts: Texts) -> tuple[bytes, str]:
    """Return the EXIF block that JPEG has room for, and a warning when it is not all of it.

    The graph goes first and the record last, each as a whole.
    """
    whole = exif(texts)
    if len(whole) <= JPEG_EXIF_LIMIT:
        return whole, ""
    record = {key: value for key, value in texts.items.items() if key == RECORD}
    note = texts.parameters
    choices = (Texts(record, parameters=note), Texts(record), Texts(parameters=note))
    fitting = (some for some in choices if len(exif(some)) <= JPEG_EXIF_LIMIT and some != Texts())
    kept = next(fitting, Texts())
    parts = {
        "the workflow": (texts.items.keys() - record, None),
        "the record of the run": (record, kept.items),
        "the parameters text": (note, kept.parameters),
    }
    lost = " and ".join(name for name, (given, stays) in parts.items() if given and not stays)
    stay = " and ".join(name for name, (_, stays) in parts.items() if stays)
    return exif(kept), (
        f"the metadata takes {len(whole)} bytes and JPEG has room for {JPEG_EXIF_LIMIT}: saved "
        f"without {lost}{stay and f', with {stay}'}; choose png or webp to keep it all"
    )


def read(image: Image.Image) -> dict[str, str]:
    """Return the texts embedded in an opened PNG, WebP or JPEG picture, by key.

    All are JSON, except `parameters`.
    """
    found: dict[str, str] = {}
    if isinstance(image, PngImagePlugin.PngImageFile):
        return {key: str(value) for key, value in image.text.items()}
    block = image.getexif()
    for value in block.values():
        key, colon, text = value.partition(":") if isinstance(value, str) else ("", "", "")
        if colon:
            found[key] = text
    comment = block.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if isinstance(comment, bytes) and comment.startswith(_UNICODE):
        found[PARAMETERS] = comment[len(_UNICODE) :].decode("utf-16-be", "replace")
    return found


def _directory(entries: list[_Entry], start: int = len(_TIFF_HEADER)) -> bytes:
    """Return a TIFF directory that begins at start, and after it the values longer than 4 bytes."""
    table, values = struct.pack(">H", len(entries)), b""
    after = start + len(table) + 12 * len(entries) + 4
    for tag, kind, value in sorted(entries):
        count = 1 if kind == TiffTags.LONG else len(value)
        place = value.ljust(4, b"\0")
        if len(value) > 4:
            place = struct.pack(">I", after + len(values))
            values += value + bytes(len(value) % 2)
        table += struct.pack(">HHI", tag, kind, count) + place
    return table + bytes(4) + values


def _free_tags() -> Iterator[int]:
    for tag in range(_FIRST_FREE_TAG, 0, -1):
        if TiffTags.lookup(tag).type in (None, 0, TiffTags.ASCII):
            yield tag
