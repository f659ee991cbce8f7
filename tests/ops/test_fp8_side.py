"""How much of a LoRA arrives beside an fp8 weight, and how much noise comes with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from flux_hotswap.ops.fp8.matmul import by_hand, by_rows, multiply
from flux_hotswap.ops.fp8.packed import pack, unpack
from flux_hotswap.ops.fp8.rows import FP8, FP8_MAX, dequantise_rows, quantise_rows
from flux_hotswap.ops.fp8.side import STEP, Factors, columns, stack

SIZE = 512
TOKENS = 256
DEVIATION = 0.02
"""Of the weight; FLUX's are about this."""

RANKS = [4, 16, 64, 128]
SIZES = [1e-5, 1e-4, 1e-3, 1e-2]
"""Of a delta, relative to the weight."""

GAIN = 0.02
"""How far the gain may be from 1."""


def seeded(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class World:
    """A weight with heavy tails, and tokens that are loud in one channel."""

    def __init__(self) -> None:
        self.weight = DEVIATION * seeded(SIZE, SIZE)
        self.weight *= torch.where(seeded(SIZE, SIZE, seed=2) > 3, 5.0, 1.0)
        self.values, self.scale = quantise_rows(self.weight)
        self.tokens = seeded(TOKENS, SIZE, seed=3)
        self.tokens[:, 5] *= 50
        self.plain = {dtype: self.through([], dtype) for dtype in (torch.float32, torch.bfloat16)}

    def through(self, parts: list[Factors], dtype: torch.dtype) -> Tensor:
        """The layer's output with these LoRAs beside it; float32."""
        way = by_rows if dtype == torch.bfloat16 else by_hand
        tokens = self.tokens.to(dtype)
        if not parts:
            plain = unpack(self.values, SIZE, self.scale)
            return multiply(way, tokens, plain, None, None).float()
        beside, down = columns(stack(parts, SIZE), self.scale)
        weight = unpack(pack(self.values, self.scale, beside), SIZE, self.scale)
        return multiply(way, tokens, weight, None, down.to(dtype)).float()

    def merged(self, parts: list[Factors], dtype: torch.dtype) -> Tensor:
        """The same with the LoRAs added before the weight is quantised."""
        way = by_rows if dtype == torch.bfloat16 else by_hand
        values, scale = quantise_rows(self.weight + delta(parts))
        weight = unpack(values, SIZE, scale)
        return multiply(way, self.tokens.to(dtype), weight, None, None).float()


WORLD = World()


def lora(rank: int, size: float, seed: int, *, rows: int = SIZE, start: int = 0) -> Factors:
    """A LoRA whose delta has the given size, relative to the weight."""
    up, down = seeded(rows, rank, seed=seed), seeded(rank, SIZE, seed=seed + 1)
    size *= DEVIATION / float((up @ down).std())
    return Factors(up * size, down, start)


def delta(parts: list[Factors]) -> Tensor:
    made = torch.zeros(SIZE, SIZE)
    for part in parts:
        made[part.start : part.start + len(part.up)] += part.up @ part.down
    return made


def arrived(change: Tensor, parts: list[Factors], dtype: torch.dtype) -> tuple[float, float]:
    """The gain of a change of the output, and the noise relative to what was wanted."""
    wanted = WORLD.tokens.to(dtype).float() @ delta(parts).T
    gain = float((change * wanted).sum() / wanted.square().sum())
    return gain, float((change - gain * wanted).norm() / wanted.norm())


LORAS = {
    "one": lambda rank, size: [lora(rank, size, 10)],
    "two": lambda rank, size: [lora(rank, size, 10), lora(rank, size / 2, 20)],
    "small rows, few of them": lambda rank, size: [lora(rank, size, 10, rows=150, start=128)],
}


@pytest.mark.parametrize("make", LORAS.values(), ids=list(LORAS))
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rank", RANKS)
def test_all_of_a_lora_arrives(rank: int, size: float, make: Any) -> None:
    """In float32, where the output's own rounding hides nothing."""
    parts = make(rank, size)
    plain = WORLD.plain[torch.float32]
    gain, noise = arrived(WORLD.through(parts, torch.float32) - plain, parts, torch.float32)
    assert gain == pytest.approx(1, abs=GAIN)
    merged_gain, merged = arrived(WORLD.merged(parts, torch.float32) - plain, parts, torch.float32)
    assert noise < 0.1
    assert noise < merged, (merged_gain, merged)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rank", RANKS)
def test_all_of_a_lora_arrives_in_bf16(rank: int, size: float) -> None:
    parts = [lora(rank, size, 10)]
    plain = WORLD.plain[torch.bfloat16]
    gain, noise = arrived(WORLD.through(parts, torch.bfloat16) - plain, parts, torch.bfloat16)
    # Both outputs are rounded to bf16, by up to 2^-9 of their size: that much is chance.
    wanted = WORLD.tokens @ delta(parts).T
    rounding = float(2**0.5 * plain.norm() * 2.0**-9 / wanted.norm())
    assert abs(gain - 1) <= GAIN + 3 * rounding / plain.numel() ** 0.5
    _, merged = arrived(WORLD.merged(parts, torch.bfloat16) - plain, parts, torch.bfloat16)
    assert noise < 0.1 + rounding
    assert noise < merged


@pytest.mark.parametrize("size", [1e-3, 1e-2])
def test_loras_of_unequal_columns_arrive(size: float) -> None:
    """Trainers leave factors in which some ranks are thousands of times larger than others."""
    one = lora(16, size, 10)
    spread = torch.logspace(-4, 4, 16)
    parts = [Factors(one.up * spread, one.down / spread.roll(3)[:, None])]
    parts[0] = Factors(parts[0].up * size * DEVIATION / float(delta(parts).std()), parts[0].down)
    plain = WORLD.plain[torch.float32]
    gain, noise = arrived(WORLD.through(parts, torch.float32) - plain, parts, torch.float32)
    assert gain == pytest.approx(1, abs=GAIN)
    assert noise < 0.1


def test_a_large_lora_arrives() -> None:
    """As large as the weight, strength 3 of a loud one."""
    parts = [lora(16, 1.0, 10)]
    plain = WORLD.plain[torch.float32]
    gain, noise = arrived(WORLD.through(parts, torch.float32) - plain, parts, torch.float32)
    assert gain == pytest.approx(1, abs=GAIN)
    assert noise < 0.1


def test_the_strength_is_linear() -> None:
    one = lora(16, 1e-3, 10)
    plain = WORLD.plain[torch.float32]
    for strength in (-1.0, 0.5, 3.0):
        part = Factors(one.up * strength, one.down)
        change = WORLD.through([part], torch.float32) - plain
        assert arrived(change, [one], torch.float32)[0] == pytest.approx(strength, rel=GAIN)


# --- the columns ---


@pytest.mark.parametrize("rank", [1, 4, 7, 8, 9, 16, 128])
def test_columns_are_whole_steps_and_hold_b_twice(rank: int) -> None:
    factors = lora(rank, 1e-3, 10)
    beside, down = columns(factors, WORLD.scale)
    assert beside.dtype == FP8
    assert beside.shape == (SIZE, down.shape[0])
    assert down.shape[1] == SIZE
    assert down.shape[0] % STEP == 0
    assert 2 * rank <= down.shape[0] < 2 * rank + STEP
    assert torch.equal(down[:rank], down[rank : 2 * rank])
    assert not down[2 * rank :].any()
    product = dequantise_rows(beside, WORLD.scale, torch.float32) @ down
    wanted = factors.up @ factors.down
    assert (product - wanted).norm() / wanted.norm() < 2.0**-7


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-12, 1e6])
def test_columns_of_any_size_are_finite(size: float) -> None:
    beside, down = columns(Factors(seeded(64, 4) * size, seeded(4, 64)), torch.ones(64, 1))
    assert torch.isfinite(down).all()
    assert beside.float().abs().max() <= FP8_MAX
    assert torch.isfinite(beside.float()).all()
    assert (beside.float().abs().max() > 0) == (size > 1e-6)


def whole_numbers(*shape: int, seed: int) -> Tensor:
    """From -7 to 7: e4m3 holds them and float32 their sums, in whatever order these are added."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-7, 8, shape, generator=generator).float()


ZEROS = {
    "up": Factors(torch.zeros(SIZE, 4), seeded(4, SIZE)),
    "down": Factors(seeded(SIZE, 4), torch.zeros(4, SIZE)),
    "both": Factors(torch.zeros(SIZE, 4), torch.zeros(4, SIZE)),
    "strength": lora(4, 0.0, 10),
}


@pytest.mark.parametrize("zero", ZEROS.values(), ids=list(ZEROS))
def test_a_lora_of_zeros_changes_nothing(zero: Factors) -> None:
    # How a CPU orders a sum depends on its length, so only sums without rounding are equal.
    world = World()
    world.values, world.scale = quantise_rows(whole_numbers(SIZE, SIZE, seed=2))
    world.tokens = whole_numbers(TOKENS, SIZE, seed=3)
    made = world.through([zero], torch.float32)
    assert torch.equal(made, world.through([], torch.float32))
    made, plain = WORLD.through([zero], torch.float32), WORLD.plain[torch.float32]
    assert torch.allclose(made, plain, rtol=0, atol=2.0**-20 * float(plain.abs().max()))


def test_stacking_puts_rows_where_they_belong() -> None:
    parts = [lora(4, 1.0, 10, rows=100, start=50), lora(8, 1.0, 20), lora(2, 1.0, 30, rows=1)]
    made = stack(parts, SIZE)
    assert made.up.shape == (SIZE, 14)
    assert torch.allclose(made.up @ made.down, delta(parts), atol=1e-5)
