"""The noise of the hosted model: torch's CUDA generator, reproduced on any machine.

`torch.randn(..., device="cuda", dtype=bfloat16)` fills a tensor with a grid of GPU threads. Each
thread owns a Philox4x32-10 stream (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
2011) whose key is the seed and whose subsequence is the thread's number; four 32-bit words make
four normal values by two Box-Muller transforms in float32, which are rounded to bfloat16. The grid
is as large as the tensor needs but no larger than what the GPU holds at once, so the number of
multiprocessors decides which value comes from which stream once the tensor outgrows the grid.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

THREADS: Final = 2048
"""Of a multiprocessor of the H100 or A100; other GPUs are counted in these, see `hosted_noise`."""

H100_MULTIPROCESSORS: Final = 132
"""Of the H100 and H200, the hosted model's GPUs."""

LATENT_CHANNELS: Final = 16

_BLOCK: Final = 256
_WORDS: Final = 4
_ROUNDS: Final = 10
_MULTIPLIERS: Final = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL: Final = (0x9E3779B9, 0xBB67AE85)
_LOW: Final = np.uint64(0xFFFFFFFF)
_SHIFT: Final = np.uint64(32)

Words = npt.NDArray[np.uint64]


def hosted_noise(
    seed: int,
    *,
    batch: int,
    height: int,
    width: int,
    draw: int = 0,
    multiprocessors: float = H100_MULTIPROCESSORS,
) -> Tensor:
    """Return the noise that the hosted model starts from.

    Args:
        seed: 0..2^64-1.
        batch: number of pictures.
        height: of the latent, in latent pixels (an eighth of the picture's).
        width: of the latent.
        draw: 0 for text to image. 1 where an input picture was encoded first, which takes one
            draw of a single picture's shape from the same generator.
        multiprocessors: of the GPU to reproduce. Where they hold less than `THREADS`, as many as
            would hold the same in all: 96 for 128 of 1536.

    Returns:
        [batch,16,height,width] float32 on the CPU, holding bfloat16 values.
    """
    picture = LATENT_CHANNELS * height * width
    skipped = draw * blocks_per_thread(picture, multiprocessors)
    values = cuda_randn(seed, batch * picture, offset=skipped, multiprocessors=multiprocessors)
    noise = torch.from_numpy(values).view(batch, LATENT_CHANNELS, height, width)
    return noise.to(torch.bfloat16).to(torch.float32)


def cuda_randn(
    seed: int, count: int, *, offset: int = 0, multiprocessors: float = H100_MULTIPROCESSORS
) -> npt.NDArray[np.float32]:
    """Return the count values that CUDA's generator draws as one float32 tensor.

    Args:
        seed: 0..2^64-1.
        count: number of elements of the tensor.
        offset: blocks of four words that earlier draws took from each thread's stream.
        multiprocessors: of the GPU to reproduce.
    """
    threads = grid_threads(count, multiprocessors)
    values = np.empty((blocks_per_thread(count, multiprocessors), _WORDS, threads), np.float32)
    # Of the last block of a stream only the lanes that the tensor reaches are needed, and of a
    # tensor smaller than the grid only its own threads.
    used = min(threads, count)
    thread = np.arange(used, dtype=np.uint64)
    for block, lanes in enumerate(values):
        words = _philox(seed, offset + block, thread)
        lanes[0, :used], lanes[1, :used] = _box_muller(words[0], words[1])
        lanes[2, :used], lanes[3, :used] = _box_muller(words[2], words[3])
    return values.reshape(-1)[:count]


def grid_threads(count: int, multiprocessors: float) -> int:
    """Return how many threads draw a tensor of count elements."""
    held = int(multiprocessors * THREADS) // _BLOCK
    return min(math.ceil(count / _BLOCK), held) * _BLOCK


def blocks_per_thread(count: int, multiprocessors: float) -> int:
    """Return how many blocks of four words a draw of count elements takes from each stream."""
    return math.ceil(count / (grid_threads(count, multiprocessors) * _WORDS))


def _philox(seed: int, block: int, thread: Words) -> tuple[Words, Words, Words, Words]:
    """Return the four 32-bit words of one block of each thread's stream."""
    key0, key1 = seed & 0xFFFFFFFF, seed >> 32
    c0 = np.full_like(thread, block & 0xFFFFFFFF)
    c1 = np.full_like(thread, block >> 32)
    c2, c3 = thread & _LOW, thread >> _SHIFT
    for _ in range(_ROUNDS):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = (product1 >> _SHIFT) ^ c1 ^ np.uint64(key0)
        c2 = (product0 >> _SHIFT) ^ c3 ^ np.uint64(key1)
        c1, c3 = product1 & _LOW, product0 & _LOW
        key0, key1 = (key0 + _WEYL[0]) & 0xFFFFFFFF, (key1 + _WEYL[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3


def _box_muller(x: Words, y: Words) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return two normal values for each pair of words, in cuRAND's order: sine, then cosine."""
    # The words become float32 first, as on the GPU; the multiply-adds round once (fma), which
    # float64 arithmetic followed by one rounding reproduces.
    uniform = x.astype(np.float32).astype(np.float64) * 2.0**-32 + 2.0**-33
    radius = np.sqrt(-2.0 * np.log(uniform.astype(np.float32).astype(np.float64)))
    turn = np.float64(np.float32(2.0**-32 * 2.0 * math.pi))
    angle = y.astype(np.float32).astype(np.float64) * turn + turn / 2
    angle = angle.astype(np.float32).astype(np.float64)
    return (
        (np.sin(angle) * radius).astype(np.float32),
        (np.cos(angle) * radius).astype(np.float32),
    )
