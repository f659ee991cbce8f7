"""Picture sizes: the preset table, custom sizes and the size an input picture is brought to."""

from __future__ import annotations

from typing import Final, NamedTuple

GRID: Final = 16
"""FLUX works on 2x2 patches of latents that are 8x8 pixels each."""

IMAGE_LIMIT: Final = 1440
"""Longest side of an input picture, in pixels."""


class Size(NamedTuple):
    """A picture's size in pixels."""

    width: int
    height: int

    @property
    def tokens(self) -> int:
        """Number of latent tokens, one for each 16x16 pixels."""
        return (self.width // GRID) * (self.height // GRID)

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


PRESETS: Final[dict[str, Size]] = {
    "1:1": Size(1024, 1024),
    "16:9": Size(1344, 768),
    "21:9": Size(1536, 640),
    "3:2": Size(1216, 832),
    "2:3": Size(832, 1216),
    "4:5": Size(896, 1088),
    "5:4": Size(1088, 896),
    "3:4": Size(896, 1152),
    "4:3": Size(1152, 896),
    "9:16": Size(768, 1344),
    "9:21": Size(640, 1536),
}


def preset_size(aspect_ratio: str, megapixels: str) -> Size:
    """Return the size of a preset; megapixels "0.25" halves both sides."""
    width, height = PRESETS[aspect_ratio]
    return Size(width // 2, height // 2) if megapixels == "0.25" else Size(width, height)


def custom_size(width: int, height: int) -> Size:
    """Return width and height rounded to the nearest multiple of 16, ties up."""
    return Size(_nearest(width), _nearest(height))


def image_size(width: int, height: int) -> Size:
    """Return the size that an input picture of width x height is resized to.

    It is shrunk to fit 1440x1440 (never enlarged), then each side goes up to a multiple of 16.
    """
    scale = min(IMAGE_LIMIT / width, IMAGE_LIMIT / height, 1.0)
    if scale < 1:
        # A side of a very long picture may shrink to nothing: one pixel is left of it.
        width, height = max(int(width * scale), 1), max(int(height * scale), 1)
    return Size(_up(width), _up(height))


def _nearest(side: int) -> int:
    return (side + GRID // 2) // GRID * GRID


def _up(side: int) -> int:
    return (side + GRID - 1) // GRID * GRID
