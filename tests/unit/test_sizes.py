"""Sizes: the preset table, custom rounding and the size an input picture is brought to."""

from __future__ import annotations

import pytest

from flux_hotswap.prediction.schedule import shift_exponent
from flux_hotswap.prediction.sizes import PRESETS, Size, custom_size, image_size, preset_size
from flux_hotswap.prediction.spec import ASPECT_RATIOS, FIELD

PRESET_TABLE = [
    # aspect_ratio, size, tokens and mu at 1 megapixel, then at 0.25
    ("1:1", (1024, 1024), 4096, 1.150000000, (512, 512), 1024, 0.630000000),
    ("16:9", (1344, 768), 4032, 1.139166667, (672, 384), 1008, 0.627291667),
    ("21:9", (1536, 640), 3840, 1.106666667, (768, 320), 960, 0.619166667),
    ("3:2", (1216, 832), 3952, 1.125625000, (608, 416), 988, 0.623906250),
    ("2:3", (832, 1216), 3952, 1.125625000, (416, 608), 988, 0.623906250),
    ("4:5", (896, 1088), 3808, 1.101250000, (448, 544), 952, 0.617812500),
    ("5:4", (1088, 896), 3808, 1.101250000, (544, 448), 952, 0.617812500),
    ("3:4", (896, 1152), 4032, 1.139166667, (448, 576), 1008, 0.627291667),
    ("4:3", (1152, 896), 4032, 1.139166667, (576, 448), 1008, 0.627291667),
    ("9:16", (768, 1344), 4032, 1.139166667, (384, 672), 1008, 0.627291667),
    ("9:21", (640, 1536), 3840, 1.106666667, (320, 768), 960, 0.619166667),
]


@pytest.mark.parametrize("row", PRESET_TABLE, ids=lambda row: row[0])
def test_preset(row: tuple[str, tuple[int, int], int, float, tuple[int, int], int, float]) -> None:
    ratio, full, full_tokens, full_mu, quarter, quarter_tokens, quarter_mu = row
    for megapixels, pixels, tokens, mu in (
        ("1", full, full_tokens, full_mu),
        ("0.25", quarter, quarter_tokens, quarter_mu),
    ):
        size = preset_size(ratio, megapixels)
        assert size == pixels
        assert size.tokens == tokens
        assert shift_exponent(size.tokens) == pytest.approx(mu, abs=1e-8)
        assert (size.width % 16, size.height % 16) == (0, 0)


def test_every_preset_is_in_the_table() -> None:
    ratios = [row[0] for row in PRESET_TABLE]
    assert list(PRESETS) == ratios == list(ASPECT_RATIOS)
    assert list(FIELD["aspect_ratio"].choices) == [*ratios, "custom"]


@pytest.mark.parametrize(
    ("side", "rounded"),
    [
        (256, 256), (257, 256), (263, 256), (264, 272), (265, 272), (272, 272), (273, 272),
        (279, 272), (280, 288), (500, 496), (504, 512), (719, 720), (721, 720), (1000, 1008),
        (1080, 1088), (1425, 1424), (1431, 1424), (1432, 1440), (1433, 1440), (1439, 1440),
        (1440, 1440),
    ],
)  # fmt: skip
def test_custom(side: int, rounded: int) -> None:
    assert custom_size(side, 512) == (rounded, 512)
    assert custom_size(512, side) == (512, rounded)


def test_custom_is_the_nearest_multiple() -> None:
    for side in range(256, 1441):
        width, height = custom_size(side, side)
        assert width == height
        assert width % 16 == 0
        assert -8 < width - side <= 8
        assert 256 <= width <= 1440


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ((1024, 1024), (1024, 1024)),
        ((1000, 1000), (1008, 1008)),
        ((1920, 1080), (1440, 816)),
        ((1080, 1920), (816, 1440)),
        ((4000, 3000), (1440, 1088)),
        ((3024, 4032), (1088, 1440)),
        ((1441, 1441), (1440, 1440)),
        ((1440, 1440), (1440, 1440)),
        ((1440, 977), (1440, 992)),  # fits, so nothing of it is lost
        ((1450, 100), (1440, 112)),
        ((512, 513), (512, 528)),
        ((100, 50), (112, 64)),
        ((10, 10), (16, 16)),
        ((1, 1), (16, 16)),
        ((1366, 768), (1376, 768)),
        ((640, 427), (640, 432)),
        ((999, 1337), (1008, 1344)),
        ((520, 520), (528, 528)),
        ((504, 504), (512, 512)),
        ((8, 2000), (16, 1440)),
        ((5000, 100), (1440, 32)),
        ((1474, 1000), (1440, 976)),  # 976.93 is cut to 976, not rounded
        ((1000, 1474), (976, 1440)),
        ((100_000, 1), (1440, 16)),
        ((1, 100_000), (16, 1440)),
    ],
    ids=str,
)
def test_image(given: tuple[int, int], size: tuple[int, int]) -> None:
    assert image_size(*given) == size


def test_image_is_never_enlarged_beyond_the_grid() -> None:
    for width in range(1, 3000, 7):
        for height in range(1, 3000, 97):
            size = image_size(width, height)
            assert (size.width % 16, size.height % 16) == (0, 0)
            assert 16 <= size.width <= min(width + 15, 1440)
            assert 16 <= size.height <= min(height + 15, 1440)


def test_size_reads_as_text() -> None:
    assert f"{Size(1344, 768)}" == "1344x768"
