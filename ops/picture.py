"""Input pictures and masks: decoded, turned upright, sized and put on the latent's grid.

The hosted model opens a picture with Pillow as RGB, shrinks it with LANCZOS and takes the mask's
top-left pixel of each 8x8 block. Here a picture is also turned upright by its EXIF tag, and what is
transparent lies on white.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import ImageError
from .picture_file import Warn, as_grey, on_white, open_flat, strips

__all__ = [
    "LATENT_CELL",
    "ImageError",
    "decode_mask",
    "decode_picture",
    "grid_mask",
    "is_placeholder",
    "mask_warning",
    "resize_picture",
]

LATENT_CELL: Final = 8
"""Pixels of a picture's side that one latent pixel stands for."""

THRESHOLD: Final = 128
"""Grey value of a mask from which on it is white."""

_NO_MASK: Final = (64, 64)
"""Size of the black mask that LoadImage gives where there is none."""

KEPT: Final = 12_600_000
"""Most pixels that a decoded picture keeps: as a tensor it takes 12 bytes for each."""

SHRUNK: Final = 4_000_000
"""Most pixels of a picture that had more than `KEPT`, where no size is asked for."""

_ROWS: Final = 2**20
"""Values of a tensor that are turned into bytes at a time."""


def _silent(_warning: str) -> None:
    """Say nothing."""


def decode_picture(
    data: bytes, name: str, *, fit: tuple[int, int] | None = None, warn: Warn = _silent
) -> Tensor:
    """Return the picture in a file's bytes, the first frame if it is animated.

    One of more than `KEPT` pixels is shrunk, since a tensor of it would fill the memory.

    Args:
        data: PNG, JPEG, WebP, GIF, BMP or TIFF.
        name: what to call it in an error.
        fit: width and height that a picture of more than `KEPT` pixels is resized to, as
            `resize_picture` does; without it, it is shrunk to `SHRUNK` and keeps its proportions.
        warn: told what is damaged and opened all the same.

    Returns:
        [1,H,W,3] float32 0..1, upright, on white.

    Raises:
        ImageError: not such a picture, nothing left of it, or too large to open.
    """
    picture, pixels = open_flat(data, name, on_white, smooth=True, warn=warn)
    if pixels > KEPT:
        picture = picture.resize(fit or _kept(*picture.size), Image.Resampling.LANCZOS)
    return _to_tensor(picture)


def decode_mask(
    data: bytes, name: str, *, fit: tuple[int, int] | None = None, warn: Warn = _silent
) -> Tensor:
    """Return the mask in a file's bytes: its colours as grey, whatever its alpha says.

    Args:
        data: as for `decode_picture`.
        name: what to call it in an error.
        fit: as for `decode_picture`, as `grid_mask` does it.
        warn: told what is damaged and opened all the same.

    Returns:
        [1,H,W] float32 0..1, 1 is repainted.

    Raises:
        ImageError: as `decode_picture`.
    """
    grey, pixels = open_flat(data, name, as_grey, smooth=False, warn=warn)
    if pixels > KEPT:
        grey = grey.resize(fit or _kept(*grey.size), Image.Resampling.NEAREST)
    return _to_tensor(grey)[..., 0]


def resize_picture(image: Tensor, width: int, height: int) -> Tensor:
    """Return the first picture of a batch, resized with LANCZOS.

    Args:
        image: [B,H,W,C] 0..1, C is 1 (grey), 3 or 4 (alpha, laid on white). Not modified.
        width: in pixels.
        height: in pixels.

    Returns:
        [1,height,width,3] float32 0..1, in steps of 1/255.

    Raises:
        ImageError: not a picture tensor.
    """
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4) or 0 in image.shape:
        raise ImageError(
            f"image: give the shape [B,H,W,C] with 1, 3 or 4 channels, not {list(image.shape)}"
        )
    pixels = _to_bytes(image[0])
    grey = pixels.shape[-1] == 1
    picture = on_white(Image.fromarray(pixels[..., 0] if grey else pixels))
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    return _to_tensor(picture)


def grid_mask(mask: Tensor, width: int, height: int) -> Tensor:
    """Return the first mask of a batch as the latent sees it: each cell 0 (kept) or 1.

    Args:
        mask: [B,H,W] or [H,W], 0..1, 1 is repainted; of any size. Not modified.
        width: of the picture in pixels.
        height: of the picture in pixels.

    Returns:
        [1,height/8,width/8] float32 of 0 and 1.

    Raises:
        ImageError: not a mask tensor.
    """
    if mask.ndim not in (2, 3) or 0 in mask.shape:
        raise ImageError(f"mask: give the shape [B,H,W], not {list(mask.shape)}")
    single = mask if mask.ndim == 2 else mask[0]
    grey = Image.fromarray(_to_bytes(single))
    if grey.size != (width, height):
        grey = grey.resize((width, height), Image.Resampling.NEAREST)
    white = np.asarray(grey) >= THRESHOLD
    cells = white[::LATENT_CELL, ::LATENT_CELL].astype(np.float32)
    return torch.from_numpy(cells)[None]


def is_placeholder(mask: Tensor, size: tuple[int, int] | None) -> bool:
    """Tell whether a mask is what ComfyUI's LoadImage hands out for a picture without alpha.

    Args:
        mask: [B,H,W].
        size: width and height of the picture beside it, None without one.
    """
    if mask.shape[-2:] != _NO_MASK or bool(mask.any()):
        return False
    return size != _NO_MASK


def mask_warning(mask: Tensor, cells: Tensor) -> str:
    """Return what is odd about a mask on the latent's grid, "" if nothing is.

    Args:
        mask: as given to `grid_mask`.
        cells: what it returned.
    """
    if cells.any():
        return ""
    if bool((mask * 255 >= THRESHOLD - 0.5).any()):
        return (
            "mask: its white area lies between the points of the 8 pixel grid, so nothing is "
            "repainted; paint a larger area"
        )
    return "mask: it is all black, so nothing is repainted; paint white what is to change"


def _kept(width: int, height: int) -> tuple[int, int]:
    scale = min(1, (SHRUNK / (width * height)) ** 0.5)
    return max(1, int(width * scale)), max(1, int(height * scale))


def _to_tensor(picture: Image.Image) -> Tensor:
    """Return [1,H,W,C] float32 0..1."""
    bands = len(picture.getbands())
    values = torch.empty((1, picture.height, picture.width, bands), dtype=torch.float32)
    for top, strip in strips(picture):
        part = torch.from_numpy(np.array(strip)).view(strip.height, strip.width, bands)
        torch.div(part, 255, out=values[0, top : top + strip.height])
    return values


def _to_bytes(values: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return values of 0..1 as 0..255, rounded; what is not a number counts as 0."""
    made = torch.empty(values.shape, dtype=torch.uint8)
    rows = max(1, _ROWS // max(1, values[0].numel()))
    for top in range(0, len(values), rows):
        part = torch.nan_to_num(values[top : top + rows].detach().float().cpu())
        made[top : top + rows] = part.clamp_(0, 1).mul_(255).round_().to(torch.uint8)
    return made.numpy()
