"""Pictures as the two networks were trained to see them. Pillow does the resizing, on 8 bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SIDE = 224
_LONGEST = 64
"""Times the shorter side: of a longer picture only the middle, where the square is, is resized."""

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_HALF = (0.5, 0.5, 0.5)


def for_compvis(picture: Image.Image) -> Tensor:
    """Return [1,3,224,224] float32: the centre square, as CLIP's processor makes it.

    Args:
        picture: RGB, any size. The shorter side becomes 224 (bicubic), the rest is cut off.
    """
    picture = _middle(picture)
    width, height = picture.size
    short = min(width, height)
    # The longer side is cut down to a whole number, not rounded.
    size = (int(SIDE * width / short), int(SIDE * height / short))
    resized = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
    square = resized.crop((left, top, left + SIDE, top + SIDE))
    return _normalised(square, _CLIP_MEAN, _CLIP_STD)


def for_falcon(picture: Image.Image) -> Tensor:
    """Return [1,3,224,224] float32: the whole picture squeezed into the square (bilinear).

    Args:
        picture: RGB, any size.
    """
    return _normalised(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR), _HALF, _HALF)


def _middle(picture: Image.Image) -> Image.Image:
    """Return a picture whose longer side is in bounds; else a line is resized to gigabytes."""
    width, height = picture.size
    most = _LONGEST * min(width, height)
    if max(width, height) <= most:
        return picture
    left, top = max(0, (width - most) // 2), max(0, (height - most) // 2)
    return picture.crop((left, top, left + min(width, most), top + min(height, most)))


def _normalised(picture: Image.Image, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    pixels = np.asarray(picture, dtype=np.float64) / 255
    pixels = (pixels - np.asarray(mean)) / np.asarray(std)
    return torch.from_numpy(pixels.astype(np.float32)).movedim(-1, 0)[None].contiguous()
