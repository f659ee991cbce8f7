"""How much of a LoRA arrives beside an int8 weight, and how much noise comes with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from flux_hotswap.ops.int8 import multiply_stored, quantise
from flux_hotswap.ops.lora.beside import (
    MOST_RANKS,
    Dense,
    Factors,
    Kron,
    Lengths,
    hadamard,
    rows_of,
    stack,
)

SIZE = 512
GROUP = 256
TOKENS = 256
DEVIATION = 0.02
"""Of the weight; FLUX's are about this."""

RANKS = [4, 16, 64, 128]
SIZES = [1e-4, 1e-3, 1e-2]
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
        self.values, self.scale = quantise(self.weight, GROUP)
        self.tokens = seeded(TOKENS, SIZE, seed=3)
        self.tokens[:, 5] *= 50
        self.plain = {dtype: self.through([], dtype) for dtype in (torch.float32, torch.bfloat16)}

    def through(self, parts: list[Factors], dtype: torch.dtype) -> Tensor:
        """The layer's output with these LoRAs beside it; float32."""
        tokens = self.tokens.to(dtype)
        made = multiply_stored(tokens, self.values, self.scale, None, GROUP)
        if parts:
            stack(parts).to(tokens.device, dtype).add_to(made, tokens)
        assert made.dtype == dtype
        return made.float()

    def merged(self, parts: list[Factors], dtype: torch.dtype) -> Tensor:
        """The same with the LoRAs added before the weight is quantised."""
        values, scale = quantise(self.weight + delta(parts), GROUP)
        return multiply_stored(self.tokens.to(dtype), values, scale, None, GROUP).float()


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


@pytest.mark.parametrize(("size", "least"), [(1e-4, 0.0), (1e-3, 0.4), (3e-3, 0.85), (1e-2, 0.98)])
@pytest.mark.parametrize("rank", RANKS)
def test_what_of_a_lora_arrives_in_bf16(rank: int, size: float, least: float) -> None:
    """What the layer makes is rounded to bf16 before: half a step of it swallows less than that."""
    parts = [lora(rank, size, 10)]
    plain = WORLD.plain[torch.bfloat16]
    gain, noise = arrived(WORLD.through(parts, torch.bfloat16) - plain, parts, torch.bfloat16)
    assert least < gain < 1 + GAIN
    _, merged = arrived(WORLD.merged(parts, torch.bfloat16) - plain, parts, torch.bfloat16)
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


ZEROS = {
    "up": Factors(torch.zeros(SIZE, 4), seeded(4, SIZE)),
    "down": Factors(seeded(SIZE, 4), torch.zeros(4, SIZE)),
    "both": Factors(torch.zeros(SIZE, 4), torch.zeros(4, SIZE)),
    "strength": lora(4, 0.0, 10),
}


@pytest.mark.parametrize("zero", ZEROS.values(), ids=list(ZEROS))
def test_a_lora_of_zeros_changes_nothing(zero: Factors) -> None:
    for dtype, plain in WORLD.plain.items():
        assert torch.equal(WORLD.through([zero], dtype), plain)


ROWS = [(SIZE, 0), (100, 0), (100, 50), (1, SIZE - 1)]


@pytest.mark.parametrize(("rows", "start"), ROWS)
def test_a_lora_is_added_in_place_to_its_rows_alone(rows: int, start: int) -> None:
    one = lora(4, 1.0, 10, rows=rows, start=start)
    tokens, made = seeded(12, SIZE), seeded(12, SIZE, seed=2)
    wanted = made + tokens @ delta([one]).T
    others = torch.ones(SIZE, dtype=torch.bool)
    others[start : start + rows] = False
    left = made[:, others].clone()
    one.add_to(made, tokens)
    torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(made[:, others], left)


def test_stacking_puts_rows_where_they_belong() -> None:
    parts = [lora(4, 1.0, 10, rows=100, start=50), lora(8, 1.0, 20, rows=60, start=200),
             lora(2, 1.0, 30, rows=1, start=40)]  # fmt: skip
    made = stack(parts)
    assert (made.start, made.up.shape) == (40, (220, 14)), "rows that no LoRA changes are left out"
    assert torch.allclose(delta([made]), delta(parts), atol=1e-5)


# --- LoHa and LoKr ---


def kron(size: float, *, rows: int = SIZE, start: int = 0) -> Kron:
    """A LoKr whose delta has the given size, relative to the weight."""
    left, right = seeded(8, 16, seed=40), seeded(rows // 8, SIZE // 16, seed=41)
    size *= DEVIATION / float(torch.kron(left, right).std())
    return Kron(left * size, right, start)


def test_a_kronecker_product_is_not_written_out_and_is_the_same() -> None:
    one = kron(1.0)
    made = one.through(WORLD.tokens)
    assert made.shape == (TOKENS, SIZE)
    wanted = WORLD.tokens @ torch.kron(one.left, one.right).T
    torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("rows", "start"), [(SIZE, 0), (128, 0), (128, 200), (8, SIZE - 8)])
def test_a_kronecker_product_goes_to_its_rows(rows: int, start: int) -> None:
    one = kron(1.0, rows=rows, start=start)
    tokens, made = seeded(12, SIZE), seeded(12, SIZE, seed=2)
    delta = torch.zeros(SIZE, SIZE)
    delta[start : start + rows] = torch.kron(one.left, one.right)
    wanted = made + tokens @ delta.T
    one.add_to(made, tokens)
    torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [0.005, 0.02, 0.1])
def test_all_of_a_lokr_arrives_beside_int8(size: float) -> None:
    """Its noise is a LoRA's; added into the weight it is many times that."""
    one = kron(size)
    delta = torch.kron(one.left, one.right)
    wanted = WORLD.tokens @ delta.T
    plain = WORLD.plain[torch.float32]
    made = plain.clone()
    one.add_to(made, WORLD.tokens)
    change = made - plain
    assert float((change - wanted).norm() / wanted.norm()) < 0.01
    values, scale = quantise(WORLD.weight + delta, GROUP)
    merged = multiply_stored(WORLD.tokens, values, scale, None, GROUP).float() - plain
    assert float((merged - wanted).norm() / wanted.norm()) > 0.05


@pytest.mark.parametrize(("first", "second"), [(1, 1), (2, 3), (4, 4), (16, 16)])
def test_a_hadamard_product_is_one_pair(first: int, second: int) -> None:
    a, b = seeded(7, first, seed=1), seeded(first, 5, seed=2)
    c, d = seeded(7, second, seed=3), seeded(second, 5, seed=4)
    pair = hadamard((a, b), (c, d))
    assert pair is not None
    assert len(pair.down) == first * second
    torch.testing.assert_close(pair.up @ pair.down, (a @ b) * (c @ d), rtol=1e-4, atol=1e-4)


def test_a_hadamard_product_of_many_ranks_is_left() -> None:
    many = torch.ones(3, MOST_RANKS), torch.ones(MOST_RANKS, 3)
    assert hadamard(many, (torch.ones(3, 1), torch.ones(1, 3))) is not None
    assert hadamard(many, (torch.ones(3, 2), torch.ones(2, 3))) is None


# --- what depends on the weight, or has no factors ---


@pytest.mark.parametrize(("rows", "start"), [(SIZE, 0), (128, 200), (1, SIZE - 1)])
def test_what_is_written_out_goes_to_its_rows(rows: int, start: int) -> None:
    one = Dense(seeded(rows, SIZE, seed=50), start)
    made = WORLD.plain[torch.float32].clone()
    one.add_to(made, WORLD.tokens)
    delta = torch.zeros(SIZE, SIZE)
    delta[start : start + rows] = one.values
    wanted = WORLD.plain[torch.float32] + WORLD.tokens @ delta.T
    torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("rows", "start"), [(SIZE, 0), (128, 200), (1, SIZE - 1)])
def test_rows_become_longer(rows: int, start: int) -> None:
    one = Lengths(0.1 * seeded(rows, seed=51), start)
    weight = WORLD.weight.clone()
    made = WORLD.tokens @ weight.T
    weight[start : start + rows] *= 1 + one.more[:, None]
    rows_of(made, start, rows).add_(one.of(made))
    torch.testing.assert_close(made, WORLD.tokens @ weight.T, rtol=1e-4, atol=1e-4)
