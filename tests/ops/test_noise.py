"""The hosted model's noise: recorded values, and a plain scalar version of the same generator."""

from __future__ import annotations

import itertools
import math
import random
import struct
from fractions import Fraction

import numpy as np
import pytest
import torch

from flux_hotswap.ops import noise
from flux_hotswap.ops.noise import (
    H100_MULTIPROCESSORS,
    blocks_per_thread,
    cuda_randn,
    grid_threads,
    hosted_noise,
)

A100, H100_PCIE, H100 = 108, 114, 132
RTX_4090, RTX_3090, RTX_2080 = 96, 61.5, 23  # 128 and 82 of 1536 threads, 46 of 1024
LAST = -1


def latent(width: int, height: int) -> dict[str, int]:
    """Return the latent's sides of a picture in pixels."""
    return {"height": height // 8, "width": width // 8}


# A second version, written for one element at a time


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 as in the paper (Salmon et al. 2011): ten rounds, the key bumped between."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c2, 2**32)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def float32(value: float | Fraction) -> float:
    """Return value rounded once to the nearest float32."""
    return struct.unpack("f", struct.pack("f", float(value)))[0]


def bfloat16(value: float) -> float:
    """Return a float32 value rounded to the nearest bfloat16, ties to even."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    bits += 0x7FFF + (bits >> 16 & 1)
    return struct.unpack("<f", struct.pack("<I", bits & 0xFFFF0000))[0]


def box_muller(x: int, y: int) -> tuple[float, float]:
    """Return cuRAND's pair of normal values of two words."""
    turn = Fraction(float32(2 * math.pi)) / 2**32
    uniform = float32(Fraction(float32(x)) / 2**32 + Fraction(1, 2**33))
    angle = float32(Fraction(float32(y)) * turn + turn / 2)
    radius = math.sqrt(-2 * math.log(uniform))
    return float32(radius * math.sin(angle)), float32(radius * math.cos(angle))


def element(seed: int, index: int, count: int, *, blocks: int = 0, cores: float = H100) -> float:
    """Return one element of a draw of count values, after `blocks` blocks of earlier draws."""
    threads = 256 * min(-(-count // 256), int(cores * 8))
    thread = index % threads
    lane = index // threads % 4
    block = blocks + index // (4 * threads)
    counter = (block % 2**32, block >> 32, thread % 2**32, thread >> 32)
    x, y, z, w = philox(counter, (seed % 2**32, seed >> 32))
    return (box_muller(x, y) + box_muller(z, w))[lane]


# Random123's known answers, kat_vectors of its repository
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(
    ("counter", "key", "words"), KNOWN_ANSWERS, ids=["zeros", "ones", "digits of pi"]
)
def test_philox_known_answers(
    counter: tuple[int, int, int, int], key: tuple[int, int], words: tuple[int, int, int, int]
) -> None:
    assert philox(counter, key) == words
    seed = key[0] | key[1] << 32
    block = counter[0] | counter[1] << 32
    thread = np.array([counter[2] | counter[3] << 32, 5], np.uint64)
    ours = noise._philox(seed, block, thread)
    assert tuple(int(word[0]) for word in ours) == words
    assert all(word.dtype == np.uint64 for word in ours)


CORNERS = [0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFF7F, 0xFFFFFF80, 0xFFFFFFFE, 0xFFFFFFFF]


def test_box_muller_at_the_corners() -> None:
    pairs = list(itertools.product(CORNERS, CORNERS))
    x, y = np.array(pairs, np.uint64).T
    sines, cosines = noise._box_muller(x, y)
    assert np.isfinite(sines).all()
    assert np.isfinite(cosines).all()
    expected = [box_muller(*pair) for pair in pairs]
    assert list(zip(sines.tolist(), cosines.tolist(), strict=True)) == expected


def test_largest_value_is_that_of_the_smallest_uniform() -> None:
    words = np.array([0], np.uint64)
    sine, cosine = noise._box_muller(words, words)
    assert cosine[0] == pytest.approx(math.sqrt(-2 * math.log(2**-33)), rel=1e-6)
    assert sine[0] == pytest.approx(0, abs=1e-8)


def distinct_elements(count: int) -> list[int]:
    """Return the first and last elements, those at every change of lane and round, and others."""
    threads = grid_threads(count, H100)
    edges = [edge + step for edge in range(0, count, threads) for step in (-1, 0, 1)]
    drawn = random.Random(count).sample(range(count), min(count, 150))
    return sorted({index for index in (*edges, *drawn, count - 1) if 0 <= index < count})


@pytest.mark.parametrize("seed", [0, 42, 2**32, 2**64 - 1])
@pytest.mark.parametrize(
    ("batch", "width", "height"),
    [
        (1, 16, 16),  # far smaller than the grid
        (1, 1024, 1024),  # one lane
        (1, 1440, 1440),  # two lanes
        (2, 1536, 640),
        (3, 1344, 768),
        (4, 1440, 1440),  # eight lanes: two rounds
    ],
    ids=str,
)
def test_equals_the_scalar_version(seed: int, batch: int, width: int, height: int) -> None:
    values = hosted_noise(seed, batch=batch, **latent(width, height)).flatten()
    indices = distinct_elements(values.numel())
    expected = [bfloat16(element(seed, index, values.numel())) for index in indices]
    assert values[indices].tolist() == expected


@pytest.mark.parametrize("cores", [1, 1.5, 2, A100, H100_PCIE, 1000])
@pytest.mark.parametrize("count", [1, 255, 256, 257, 2048, 8192, 8193, 40_000, 100_001])
def test_float32_draw_equals_the_scalar_version(cores: float, count: int) -> None:
    """Few multiprocessors give many rounds; odd counts leave the last block half used."""
    values = cuda_randn(7, count, offset=3, multiprocessors=cores)
    assert values.shape == (count,)
    assert values.dtype == np.float32
    for index in random.Random(count).sample(range(count), min(count, 40)):
        assert values[index] == element(7, index, count, blocks=3, cores=cores)
    assert values[LAST] == element(7, count - 1, count, blocks=3, cores=cores)


@pytest.mark.parametrize(
    ("count", "cores", "threads", "blocks"),
    [
        (1, H100, 256, 1),
        (256, H100, 256, 1),
        (257, H100, 512, 1),
        (262_144, H100, 262_144, 1),
        (262_144, A100, 221_184, 1),
        (270_336, H100, 270_336, 1),
        (270_337, H100, 270_336, 1),
        (4 * 270_336, H100, 270_336, 1),
        (4 * 270_336 + 1, H100, 270_336, 2),
        (4 * 518_400, H100, 270_336, 2),
        (4 * 518_400, A100, 221_184, 3),
        (4 * 518_400, RTX_4090, 128 * 1536, 3),
        (4 * 518_400, RTX_3090, 82 * 1536, 5),
        (4 * 518_400, RTX_2080, 46 * 1024, 12),
    ],
)
def test_grid(count: int, cores: float, threads: int, blocks: int) -> None:
    assert grid_threads(count, cores) == threads
    assert blocks_per_thread(count, cores) == blocks


# Recorded values of CUDA's generator


@pytest.mark.parametrize(
    ("seed", "values"),
    [
        (0, [-0.92578125, -0.42578125, -2.640625, 0.1455078125, -0.12109375, -0.578125]),
        (42, [0.1943359375, 2.15625, -0.171875, 0.84765625, -1.921875, 0.65234375]),
        (8888, [0.25390625, -1.3828125, -0.26171875, -0.1357421875, 0.68359375, -0.96484375]),
    ],
)
@pytest.mark.parametrize(
    ("size", "batch"),
    [((256, 256), 1), ((512, 512), 4), ((1024, 1024), 1), ((1344, 768), 2), ((1440, 1440), 1)],
    ids=str,
)
def test_first_values(seed: int, values: list[float], size: tuple[int, int], batch: int) -> None:
    drawn = hosted_noise(seed, batch=batch, **latent(*size))
    assert drawn[0, 0, 0, :6].tolist() == values


@pytest.mark.parametrize(
    ("seed", "values"),
    [
        (0, [-0.92466, -0.42534, -2.64385, 0.14518]),
        (42, [0.1940, 2.1614, -0.1721, 0.8491, -1.9244, 0.6530]),
    ],
)
def test_first_values_in_float32(seed: int, values: list[float]) -> None:
    drawn = cuda_randn(seed, 1000)[: len(values)]
    assert drawn.tolist() == pytest.approx(values, abs=6e-5)


@pytest.mark.parametrize(
    ("seed", "size", "value"),
    [
        (42, (1024, 1024), 1.8203125),
        (42, (512, 512), 0.380859375),
        (8888, (1024, 1024), 1.5390625),
    ],
)
def test_last_value(seed: int, size: tuple[int, int], value: float) -> None:
    assert hosted_noise(seed, batch=1, **latent(*size)).flatten()[LAST] == value


SECOND_DRAW = [0.138671875, -0.1083984375, -0.71875, 0.7578125, 0.37109375, -1.0078125]


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_second_draw(batch: int) -> None:
    drawn = hosted_noise(42, batch=batch, **latent(1024, 1024), draw=1)
    assert drawn[0, 0, 0, :6].tolist() == SECOND_DRAW


def test_second_output() -> None:
    drawn = hosted_noise(42, batch=2, **latent(1024, 1024))
    assert drawn[1, 0, 0, :6].tolist() == [
        -0.79296875, 1.2109375, -2.203125, -0.375, 0.111328125, -1.3828125,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("size", "batch", "shape"),
    [
        ((1344, 768), 3, (3, 16, 96, 168)),
        ((256, 1440), 1, (1, 16, 180, 32)),
        ((16, 16), 1, (1, 16, 2, 2)),
        ((1024, 1024), 4, (4, 16, 128, 128)),
    ],
)
def test_shape_and_type(size: tuple[int, int], batch: int, shape: tuple[int, ...]) -> None:
    drawn = hosted_noise(1, batch=batch, **latent(*size))
    assert drawn.shape == shape
    assert drawn.dtype == torch.float32
    assert drawn.device.type == "cpu"
    assert drawn.is_contiguous()
    assert torch.equal(drawn, drawn.to(torch.bfloat16).to(torch.float32))


# Draws, batches and multiprocessors


@pytest.mark.parametrize(
    ("size", "cores", "draw"),
    [
        ((256, 256), H100, 0),
        ((256, 256), A100, 1),
        ((512, 512), H100_PCIE, 0),
        ((512, 512), H100, 1),
        ((1024, 1024), A100, 0),
        ((1024, 1024), H100_PCIE, 0),
        ((1024, 1024), H100, 0),
        ((1024, 1024), H100, 1),
        ((1536, 640), A100, 1),
        ((1440, 1440), H100, 0),
    ],
    ids=str,
)
def test_output_does_not_depend_on_the_batch(size: tuple[int, int], cores: int, draw: int) -> None:
    four = hosted_noise(42, batch=4, **latent(*size), draw=draw, multiprocessors=cores)
    for batch in (1, 3):
        fewer = hosted_noise(42, batch=batch, **latent(*size), draw=draw, multiprocessors=cores)
        assert torch.equal(fewer, four[:batch])
    assert not torch.equal(four[0], four[1])


def test_multiprocessors_agree_up_to_the_smaller_grid() -> None:
    """84.4 % of a 1024x1024 draw is the same on an A100 and an H100."""
    h100 = hosted_noise(42, batch=1, **latent(1024, 1024)).flatten()
    a100 = hosted_noise(42, batch=1, **latent(1024, 1024), multiprocessors=A100).flatten()
    assert H100_MULTIPROCESSORS == H100
    assert torch.equal(h100[:221_184], a100[:221_184])
    assert h100[221_184] != a100[221_184]
    assert (h100[221_184:] == a100[221_184:]).float().mean() < 0.01
    small = latent(512, 512)
    assert torch.equal(
        hosted_noise(42, batch=1, **small), hosted_noise(42, batch=1, **small, multiprocessors=A100)
    )


@pytest.mark.parametrize("draw", [1, 2])
@pytest.mark.parametrize("cores", [A100, H100])
@pytest.mark.parametrize(("size", "batch"), [((512, 512), 1), ((1440, 1440), 4)], ids=str)
def test_a_draw_starts_where_single_pictures_ended(
    size: tuple[int, int], batch: int, cores: int, draw: int
) -> None:
    """The picture that was encoded first took a draw of one picture's shape, whatever the batch."""
    sides = latent(*size)
    picture = 16 * sides["height"] * sides["width"]
    taken = math.ceil(picture / (4 * 256 * min(math.ceil(picture / 256), cores * 8)))
    values = hosted_noise(5, batch=batch, **sides, draw=draw, multiprocessors=cores).flatten()
    for index in (0, 1, values.numel() // 2, values.numel() - 1):
        exact = element(5, index, values.numel(), blocks=draw * taken, cores=cores)
        assert values[index] == bfloat16(exact)


def test_draws_and_seeds_differ() -> None:
    sides = latent(256, 256)
    drawn = [
        hosted_noise(seed, batch=1, **sides, draw=draw)
        for seed in (0, 1, 2**32, 2**63, 2**64 - 1)
        for draw in (0, 1, 2)
    ]
    for first, second in itertools.combinations(drawn, 2):
        assert (first == second).float().mean() < 0.02


def test_same_arguments_same_noise() -> None:
    first = hosted_noise(3, batch=2, **latent(512, 512))
    first_copy = first.clone()
    second = hosted_noise(3, batch=2, **latent(512, 512))
    second.zero_()
    assert torch.equal(first, first_copy)


@pytest.mark.parametrize("seed", [0, 42, 2**64 - 1])
def test_statistics(seed: int) -> None:
    """Bounds are about five standard errors of two million normal values."""
    values = hosted_noise(seed, batch=4, **latent(1440, 1440)).double()
    assert torch.isfinite(values).all()
    assert abs(values.mean().item()) < 0.004
    assert values.std().item() == pytest.approx(1, abs=0.003)
    assert (values**3).mean().item() == pytest.approx(0, abs=0.015)
    assert (values**4).mean().item() == pytest.approx(3, abs=0.04)
    assert 4.5 < values.abs().max().item() < 6.8
    channels = values.flatten(2)
    assert channels.mean(dim=2).abs().max().item() < 0.03
    flat = values.flatten(1)
    correlation = torch.corrcoef(flat) - torch.eye(4)
    assert correlation.abs().max().item() < 0.008
    neighbours = (values[..., 1:] * values[..., :-1]).mean().item()
    assert neighbours == pytest.approx(0, abs=0.004)
