"""Pictures to file bytes: WebP, JPEG and PNG with the hosted model's settings.

Pixels are rounded to the nearest of 256 levels. Imports torch, numpy and PIL, never comfy.
"""

from __future__ import annotations

import io
import logging
import os
import struct
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import SaveError
from . import metadata as meta

logger = logging.getLogger(__name__)

ImageHWC: TypeAlias = Tensor
ImageBHWC: TypeAlias = Tensor
Format = Literal["webp", "jpg", "png"]
FORMATS: tuple[Format, ...] = get_args(Format)

MAX_SIDE: Mapping[Format, int] = {"webp": 16383, "jpg": 65500, "png": 2**31 - 1}
_TITLES: Mapping[Format, str] = {"webp": "WebP", "jpg": "JPEG", "png": "PNG"}
_MAX_THREADS = 8
PNG_LEVEL = 4
"""ComfyUI's own. The hosted model's 6 is the same picture, 2 % smaller, in twice the time."""


@dataclass(frozen=True)
class Encoded:
    """One picture as a complete file."""

    data: bytes
    width: int
    height: int
    warnings: tuple[str, ...] = ()


def encode(
    image: ImageHWC, fmt: Format, quality: int, metadata: Mapping[str, object] | None = None
) -> bytes:
    """Encode one picture; what had to be left out or repaired is logged.

    Args:
        image: [H,W,C] 0..1, any float type; C is 1 (grey), 2 (grey, alpha), 3 or 4. Not modified.
        fmt: webp (always lossy), jpg or png.
        quality: 0 is lowest, 100 best. Not used for png.
        metadata: JSON values to embed, by key, as `prompt` and `workflow`.

    Returns:
        The file's bytes.

    Raises:
        SaveError: the shape, the format, the quality or a side cannot be saved.
    """
    if image.ndim != 3:
        raise SaveError(f"image has shape {list(image.shape)}; give one picture, [H,W,C].")
    (encoded,) = encode_batch(image[None], fmt, quality, meta.pack(metadata))
    for warning in encoded.warnings:
        logger.warning("%s", warning)
    return encoded.data


def encode_batch(
    images: ImageBHWC, fmt: Format, quality: int, texts: meta.Texts | None = None
) -> list[Encoded]:
    """Encode a batch in parallel threads, in batch order.

    Args:
        images: [B,H,W,C] 0..1, any float type. Not modified.
        fmt: webp (always lossy), jpg or png.
        quality: 0 is lowest, 100 best. Not used for png.
        texts: what to embed in every picture, from `metadata.pack`.

    Returns:
        One file a picture.

    Raises:
        SaveError: the shape, the format, the quality or a side cannot be saved.
    """
    _check(images, fmt, quality)
    texts = texts or meta.Texts()
    workers = min(len(images), os.cpu_count() or 1, _MAX_THREADS)

    def one(index: int) -> Encoded:
        return _encode_one(images[index], fmt, quality, texts)

    if workers == 1:
        return [one(index) for index in range(len(images))]
    with ThreadPoolExecutor(workers, thread_name_prefix="encode") as pool:
        return list(pool.map(one, range(len(images))))


def lay_on_white(images: Tensor) -> Tensor:
    """Return pictures without alpha: what is transparent lies on white.

    Args:
        images: [...,H,W,C] 0..1, any float type, C 1..4. Not modified.

    Returns:
        [...,H,W,c], c is 1 or 3; `images` itself if there is no alpha. Values outside 0..1 are
        clamped where there is, and NaN becomes 0.
    """
    if images.shape[-1] not in (2, 4):
        return images
    pixels = torch.nan_to_num(images, nan=0.0, posinf=1.0, neginf=0.0).clamp(0, 1)
    alpha = pixels[..., -1:]
    return pixels[..., :-1] * alpha + (1 - alpha)


@np.errstate(invalid="ignore", over="ignore")  # sums and products of infinities are expected
def to_pil(image: ImageHWC) -> tuple[Image.Image, int]:
    """Turn one picture into an 8-bit Pillow image, rounding to nearest.

    Args:
        image: [H,W,C] 0..1, any float type, C 1..4. Not modified.

    Returns:
        The image, and how many values were NaN (they become 0). Values outside 0..1 are clamped.
    """
    # numpy on purpose: torch's own threads would compete with the encoders' threads.
    pixels = image.detach().to("cpu", torch.float32).numpy()
    bad = 0
    if np.isnan(pixels.sum()) and (bad := int(np.isnan(pixels).sum())):
        pixels = np.nan_to_num(pixels, nan=0.0, posinf=1.0, neginf=0.0)
    levels = np.multiply(pixels, np.float32(255))
    np.clip(np.rint(levels, out=levels), 0, 255, out=levels)
    array = np.ascontiguousarray(levels.astype(np.uint8))
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array), bad


def _check(images: ImageBHWC, fmt: Format, quality: int) -> None:
    if fmt not in FORMATS:
        raise SaveError(f"output_format is {fmt!r}; choose one of {', '.join(FORMATS)}.")
    if isinstance(quality, bool) or not isinstance(quality, int) or not 0 <= quality <= 100:
        raise SaveError(f"output_quality is {quality!r}; give a whole number from 0 to 100.")
    if images.ndim != 4 or not 1 <= images.shape[-1] <= 4 or not images.is_floating_point():
        raise SaveError(
            f"images has shape {list(images.shape)} and type {images.dtype}; pictures are "
            "[B,H,W,C] floats with 1 to 4 channels. Connect an IMAGE output."
        )
    if 0 in images.shape:
        raise SaveError(
            f"images has shape {list(images.shape)}: there is no picture to save. Connect an IMAGE "
            "output that has one."
        )
    height, width = images.shape[1:3]
    if max(height, width) > MAX_SIDE[fmt]:
        raise SaveError(
            f"images are {width}x{height}; {_TITLES[fmt]} holds at most {MAX_SIDE[fmt]} pixels a "
            "side. Choose png, or make the pictures smaller."
        )


def _encode_one(image: ImageHWC, fmt: Format, quality: int, texts: meta.Texts) -> Encoded:
    warnings = list(texts.warnings)
    picture, bad = _to_format(image, fmt)
    if bad:
        warnings.append(f"{bad} values are NaN, saved as 0; the model or VAE overflowed")
    if fmt == "png":
        options = {"compress_level": PNG_LEVEL, "pnginfo": meta.png_info(texts)}
        data = _save(picture, "PNG", **options)
    elif fmt == "webp":
        data = _even_chunks(_save(picture, "WEBP", quality=quality, exif=meta.exif(texts)))
    else:
        block, lost = meta.jpeg_exif(texts)
        if lost:
            warnings.append(lost)
        # Pillow versions differ on 0, "default" or "lowest"; 1 is the same bytes as lowest.
        data = _save(picture, "JPEG", quality=max(quality, 1), optimize=True, exif=block)
    return Encoded(data, picture.width, picture.height, tuple(warnings))


def _to_format(image: ImageHWC, fmt: Format) -> tuple[Image.Image, int]:
    """Return a picture as the format holds it, and how many values were NaN; JPEG has no alpha."""
    if fmt != "jpg" or image.shape[-1] not in (2, 4):
        return to_pil(image)
    return to_pil(lay_on_white(image.float()))[0], int(image.isnan().sum())


def _save(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _even_chunks(webp: bytes) -> bytes:
    """Count the padding byte of odd chunks before EXIF as part of them.

    ComfyUI's editor walks the chunks without the padding that RIFF puts after an odd one, so it
    misses the workflow of a picture whose alpha chunk has an odd length. Decoders stop reading
    alpha when the picture is full, so the extra zero byte is harmless.
    """
    data = bytearray(webp)
    position = 12
    while position + 8 <= len(data) and data[position : position + 4] != b"EXIF":
        (length,) = struct.unpack_from("<I", data, position + 4)
        if length % 2:
            length += 1
            struct.pack_into("<I", data, position + 4, length)
        position += 8 + length
    return bytes(data)
