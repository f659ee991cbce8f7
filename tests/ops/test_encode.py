"""Saved pictures: levels, channels, the hosted settings, limits."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from flux_hotswap.errors import SaveError
from flux_hotswap.ops.encode import FORMATS, Format, encode, encode_batch, to_pil


def picture(height: int = 24, width: int = 40, channels: int = 3, seed: int = 0) -> torch.Tensor:
    """Smooth colours, [H,W,C] 0..1."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, channels, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return smooth[0].movedim(0, -1).contiguous()


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize(
    ("value", "level"),
    [
        pytest.param(0.0, 0, id="black"),
        pytest.param(1.0, 255, id="white"),
        pytest.param(0.49 / 255, 0, id="below half"),
        pytest.param(0.51 / 255, 1, id="above half"),
        pytest.param(254.51 / 255, 255, id="nearest, not down"),
        pytest.param(-3.0, 0, id="below 0"),
        pytest.param(7.0, 255, id="above 1"),
        pytest.param(math.inf, 255, id="infinity"),
        pytest.param(-math.inf, 0, id="minus infinity"),
        pytest.param(math.nan, 0, id="NaN"),
    ],
)
def test_level(value: float, level: int) -> None:
    data = encode(torch.full((2, 3, 3), value), "png", 80)
    assert (np.asarray(opened(data)) == level).all()


def test_all_kinds_of_broken_values_at_once() -> None:
    image = torch.tensor([math.inf, -math.inf, 3e38, 0.5]).reshape(2, 2, 1)
    pixels, bad = to_pil(image)
    assert np.asarray(pixels).ravel().tolist() == [255, 0, 255, 128]
    assert bad == 0


def test_every_level_survives_png() -> None:
    levels = torch.arange(256, dtype=torch.float32).reshape(16, 16, 1).expand(16, 16, 3) / 255
    for dtype in (torch.float32, torch.float64):
        pixels = np.asarray(opened(encode(levels.to(dtype), "png", 80)))
        assert (pixels[..., 0].ravel() == np.arange(256)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("fmt", FORMATS)
def test_input_types(fmt: Format, dtype: torch.dtype) -> None:
    image = picture().to(dtype)
    before = image.clone()
    assert opened(encode(image, fmt, 90)).size == (40, 24)
    assert torch.equal(image, before)


@pytest.mark.parametrize(
    ("fmt", "channels", "mode"),
    [
        ("png", 1, "L"),
        ("png", 2, "LA"),
        ("png", 3, "RGB"),
        ("png", 4, "RGBA"),
        ("webp", 1, "RGB"),
        ("webp", 2, "RGBA"),
        ("webp", 3, "RGB"),
        ("webp", 4, "RGBA"),
        ("jpg", 1, "L"),
        ("jpg", 2, "L"),
        ("jpg", 3, "RGB"),
        ("jpg", 4, "RGB"),
    ],
)
def test_channels(fmt: Format, channels: int, mode: str) -> None:
    image = picture(channels=channels)
    if channels in (2, 4):
        image[..., -1] = 0.5
    assert opened(encode(image, fmt, 90)).mode == mode


def test_jpg_composites_alpha_on_white() -> None:
    image = torch.zeros(16, 16, 4)
    image[..., 3] = 0.25
    assert abs(np.asarray(opened(encode(image, "jpg", 95))).astype(int) - 191).max() <= 2


@pytest.mark.parametrize("fmt", ["png", "webp"])
def test_alpha_is_kept(fmt: Format) -> None:
    image = picture(channels=4)
    alpha = np.asarray(opened(encode(image, fmt, 90)))[..., 3]
    assert (alpha == np.asarray(to_pil(image)[0])[..., 3]).all()


def test_grey_needs_no_colour_axis_in_the_file() -> None:
    image = picture(channels=1)
    assert (np.asarray(opened(encode(image, "png", 0))) == np.asarray(to_pil(image)[0])).all()


def test_views_and_inference_tensors() -> None:
    with torch.inference_mode():
        image = picture(height=40, width=24).transpose(0, 1).flip(0)
        assert opened(encode(image, "png", 80)).size == (40, 24)


def test_nan_warns() -> None:
    images = torch.zeros(2, 4, 4, 3)
    images[1, 0, 0, 0] = math.nan
    clean, broken = encode_batch(images, "png", 80)
    assert clean.warnings == ()
    assert "1 values are NaN" in broken.warnings[0]


@pytest.mark.parametrize("quality", [0, 1, 50, 80, 100])
@pytest.mark.parametrize(
    ("fmt", "kind", "options"), [("webp", "WEBP", {}), ("jpg", "JPEG", {"optimize": True})]
)
def test_same_bytes_as_pillow(fmt: Format, kind: str, options: dict, quality: int) -> None:
    image = picture(64, 64)
    expected = io.BytesIO()
    to_pil(image)[0].save(expected, kind, quality=quality, **options)
    assert encode(image, fmt, quality) == expected.getvalue()


def test_png_is_as_comfyui_writes_it() -> None:
    expected = io.BytesIO()
    to_pil(picture())[0].save(expected, "PNG", compress_level=4)
    assert encode(picture(), "png", 3) == expected.getvalue()


def test_webp_100_is_lossy() -> None:
    data = encode(picture(64, 64), "webp", 100)
    assert b"VP8 " in data[:64]
    assert b"VP8L" not in data[:64]


def test_quality_changes_size() -> None:
    noise = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(1))
    for fmt in ("webp", "jpg"):
        sizes = [len(encode(noise, fmt, quality)) for quality in (0, 30, 80, 100)]
        assert sizes == sorted(set(sizes))


@pytest.mark.parametrize(
    ("shape", "fmt", "quality", "match"),
    [
        pytest.param((1, 8, 16384, 3), "webp", 80, "16384x8; WebP holds at most 16383", id="wide"),
        pytest.param((1, 16384, 8, 3), "webp", 80, "8x16384; WebP", id="tall"),
        pytest.param((1, 1, 65501, 3), "jpg", 80, "JPEG holds at most 65500", id="jpg side"),
        pytest.param((0, 8, 8, 3), "png", 80, "no picture", id="no pictures"),
        pytest.param((1, 0, 8, 3), "png", 80, "no picture", id="no rows"),
        pytest.param((1, 8, 8, 5), "png", 80, "1 to 4 channels", id="five channels"),
        pytest.param((8, 8, 3), "png", 80, "B,H,W,C", id="no batch axis"),
        pytest.param((1, 8, 8, 3), "jpeg", 80, "choose one of webp, jpg, png", id="format"),
        pytest.param((1, 8, 8, 3), "webp", 101, "from 0 to 100", id="quality above"),
        pytest.param((1, 8, 8, 3), "webp", -1, "from 0 to 100", id="quality below"),
        pytest.param((1, 8, 8, 3), "webp", True, "from 0 to 100", id="quality bool"),
        pytest.param((1, 8, 8, 3), "webp", 80.5, "from 0 to 100", id="quality float"),
    ],
)
def test_refused(shape: tuple[int, ...], fmt: Format, quality: int, match: str) -> None:
    with pytest.raises(SaveError, match=match):
        encode_batch(torch.zeros(shape), fmt, quality)


def test_one_picture_has_three_axes() -> None:
    with pytest.raises(SaveError, match=r"give one picture, \[H,W,C\]"):
        encode(torch.zeros(1, 4, 4, 3), "png", 80)


def test_integers_are_refused() -> None:
    with pytest.raises(SaveError, match="floats"):
        encode(torch.zeros(4, 4, 3, dtype=torch.uint8), "png", 80)


@pytest.mark.parametrize("side", [16383])
def test_largest_webp(side: int) -> None:
    assert opened(encode(torch.zeros(1, side, 3), "webp", 0)).size == (side, 1)


def test_batch_order() -> None:
    images = torch.linspace(0, 1, 12).reshape(12, 1, 1, 1).expand(12, 8, 8, 3)
    levels = [np.asarray(opened(item.data))[0, 0, 0] for item in encode_batch(images, "png", 80)]
    assert levels == sorted(levels)
    assert len(set(levels)) == 12
