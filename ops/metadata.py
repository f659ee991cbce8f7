"""Text that travels inside a picture: the graph that made it, as ComfyUI's editor reads it back.

PNG keeps one text chunk a key. WebP and JPEG keep one EXIF string a key, written `key:json`, in the
tags that ComfyUI uses. Secrets and the home folder never get in. Imports PIL, never comfy.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from PIL import ExifTags, Image, PngImagePlugin, TiffTags

JPEG_EXIF_LIMIT = 65533
"""Bytes that fit in the one JPEG segment that EXIF may use."""

_TAGS = {"prompt": ExifTags.Base.Model, "workflow": ExifTags.Base.Make}
_FIRST_FREE_TAG = ExifTags.Base.Make - 1
_KEY = re.compile(r"[ -9;-~]{1,79}")  # what a PNG keyword and an EXIF `key:` prefix can both hold

REDACTED = "[removed]"
_SECRET_NAME = re.compile(r"(?i)(^|[_-])(token|secret|password|passwd|api_?key|authorization)$")
_SECRET_TEXT = (
    re.compile(r"\b(?:hf|r8)_[A-Za-z0-9]{16,}"),
    re.compile(r"(?i)(?<=bearer )[\w.~+/=-]{8,}"),
    re.compile(r"(?i)(?<=://)[^/\s@]+(?=@)"),
    re.compile(
        r"(?i)(?<=[?&])((?:[\w-]*token|api_?key|key|secret|password|sig|x-amz-\w+|[\w-]*signature)=)"
        r"[^&#\s\"']+"
    ),
)


@dataclass(frozen=True)
class Texts:
    """Keys and their JSON, ready to embed, and what had to be left out."""

    items: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def pack(metadata: Mapping[str, object] | None, *, home: str = "") -> Texts:
    """Serialise metadata for embedding: ASCII JSON, without secrets.

    Args:
        metadata: `prompt`, `workflow` and any further key, each a JSON value. Not modified.
        home: the user's home folder; where it starts a path in a text it becomes `~`.

    Returns:
        One JSON text a key. NaN and infinity become null, because browsers refuse them. A key that
        no file format can hold, or a value that is not JSON, is left out with a warning.
    """
    items: dict[str, str] = {}
    warnings: list[str] = []
    for key, value in (metadata or {}).items():
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            warnings.append(f"metadata key {key!r:.60} cannot be stored in a picture; left out")
            continue
        try:
            items[key] = json.dumps(_clean(value, home), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            warnings.append(f"metadata {key!r} is not JSON ({error!s:.80}); left out")
    return Texts(items, tuple(warnings))


def png_info(texts: Texts) -> PngImagePlugin.PngInfo | None:
    """Return the text chunks for Pillow's PNG writer, or None when there are none."""
    if not texts.items:
        return None
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items.items():
        info.add_text(key, value)
    return info


def exif(texts: Texts) -> bytes:
    """Return an EXIF block with one string a key, empty when there are none.

    `prompt` goes to 0x0110 and `workflow` to 0x010F; other keys follow downwards, past the tags
    that TIFF defines as numbers.
    """
    if not texts.items:
        return b""
    block = Image.Exif()
    free = _free_tags()
    for key, value in texts.items.items():
        tag = _TAGS.get(key)
        block[next(free) if tag is None else tag] = f"{key}:{value}"
    return block.tobytes()


def read(image: Image.Image) -> dict[str, str]:
    """Return the JSON texts embedded in an opened PNG, WebP or JPEG picture, by key."""
    found: dict[str, str] = {}
    if isinstance(image, PngImagePlugin.PngImageFile):
        return {key: str(value) for key, value in image.text.items()}
    for value in image.getexif().values():
        key, colon, text = value.partition(":") if isinstance(value, str) else ("", "", "")
        if colon:
            found[key] = text
    return found


def _free_tags() -> Iterator[int]:
    for tag in range(_FIRST_FREE_TAG, 0, -1):
        if TiffTags.lookup(tag).type in (None, 0, TiffTags.ASCII):
            yield tag


def _clean(value: object, home: str) -> object:
    if isinstance(value, str):
        return _clean_text(value, home)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {
            _clean_text(str(k), home): REDACTED
            if isinstance(v, str) and v and _SECRET_NAME.search(str(k))
            else _clean(v, home)
            for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [_clean(item, home) for item in value]
    return value


def _clean_text(text: str, home: str) -> str:
    for pattern in _SECRET_TEXT:
        text = pattern.sub(lambda m: (m.group(1) if m.lastindex else "") + REDACTED, text)
    if len(home) > 1 and home in text:
        text = re.sub(rf"(?<![\w.-]){re.escape(home)}(?=[\\/\"'\s]|$)", "~", text)
    return text
