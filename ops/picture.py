"""Input pictures and masks: decoded, turned upright, sized and put on the latent's grid.

The hosted model opens a picture with Pillow as RGB, shrinks it with LANCZOS and takes the mask's
top-left pixel of each 8x8 block. Here a picture is also turned upright by its EXIF tag, and what is
transparent lies on white.
"""

from __future__ import annotations

import io
from typing import Final

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

LATENT_CELL: Final = 8
"""Pixels of a picture's side that one latent pixel stands for."""

THRESHOLD: Final = 128
"""Grey value of a mask from which on it is white."""

_NO_MASK: Final = (64, 64)
"""Size of the black mask that LoadImage gives where there is none."""

_DEEP_GREYS: Final = ("I;16", "I;16B", "I;16L", "I;16N", "I")


class PictureError(ValueError):
    """A picture or mask that cannot be used; the message says why and what to do."""


def decode_picture(data: bytes, name: str) -> Tensor:
    """Return the picture in a file's bytes, the first frame if it is animated.

    Args:
        data: PNG, JPEG, WebP, GIF or anything else that Pillow reads.
        name: what to call it in an error.

    Returns:
        [1,H,W,3] float32 0..1, upright, on white.

    Raises:
        PictureError: not a picture, cut short, or too large to open.
    """
    return _to_tensor(_on_white(_upright(data, name)))


def decode_mask(data: bytes, name: str) -> Tensor:
    """Return the mask in a file's bytes: its colours as grey, whatever its alpha says.

    Returns:
        [1,H,W] float32 0..1, 1 is repainted.

    Raises:
        PictureError: as `decode_picture`.
    """
    grey = _eight_bit(_upright(data, name)).convert("RGB").convert("L")
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
        PictureError: not a picture tensor.
    """
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4) or 0 in image.shape:
        raise PictureError(
            f"image: needs the shape [B,H,W,C] with 1, 3 or 4 channels, not {list(image.shape)}"
        )
    pixels = _to_bytes(image[0])
    grey = pixels.shape[-1] == 1
    picture = _on_white(Image.fromarray(pixels[..., 0] if grey else pixels))
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
        PictureError: not a mask tensor.
    """
    if mask.ndim not in (2, 3) or 0 in mask.shape:
        raise PictureError(f"mask: needs the shape [B,H,W], not {list(mask.shape)}")
    single = mask if mask.ndim == 2 else mask[0]
    grey = Image.fromarray(_to_bytes(single))
    if grey.size != (width, height):
        grey = grey.resize((width, height), Image.Resampling.NEAREST)
    white = np.asarray(grey) >= THRESHOLD
    cells = white[::LATENT_CELL, ::LATENT_CELL].astype(np.float32)
    return torch.from_numpy(cells)[None]


def is_placeholder(mask: Tensor, image: Tensor | None) -> bool:
    """Tell whether a mask is what ComfyUI's LoadImage hands out for a picture without alpha.

    Args:
        mask: [B,H,W].
        image: [B,H,W,C], the picture beside it.
    """
    if mask.shape[-2:] != _NO_MASK or bool(mask.any()):
        return False
    return image is None or image.shape[1:3] != _NO_MASK


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


def _upright(data: bytes, name: str) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(data))
        picture.load()
        return ImageOps.exif_transpose(picture)
    except UnidentifiedImageError as error:
        raise PictureError(f"{name}: not a picture; give a PNG, JPEG or WebP") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"{name}: too large to open ({error}); make it smaller") from error
    except Exception as error:  # Pillow raises anything, TypeErrors too, on damaged files
        raise PictureError(f"{name}: cannot be read ({error}); save it again") from error


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Return a picture of 8 bits a channel; Pillow's own conversion clips deeper greys."""
    if picture.mode in _DEEP_GREYS:
        values = np.asarray(picture).astype(np.float64)
        return Image.fromarray(np.clip(np.rint(values / 257), 0, 255).astype(np.uint8))
    if picture.mode == "F":
        values = np.nan_to_num(np.asarray(picture)) * 255
        return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
    return picture


def _on_white(picture: Image.Image) -> Image.Image:
    """Return an RGB picture."""
    picture = _eight_bit(picture)
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def _to_tensor(picture: Image.Image) -> Tensor:
    """Return [1,H,W,C] float32 0..1."""
    values = np.array(picture, dtype=np.float32) / 255
    return torch.from_numpy(values.reshape(1, picture.height, picture.width, -1))


def _to_bytes(values: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return values of 0..1 as 0..255, rounded; what is not a number counts as 0."""
    scaled = torch.nan_to_num(values.detach().float().cpu()).clamp(0, 1).mul(255).round()
    return scaled.to(torch.uint8).numpy()
