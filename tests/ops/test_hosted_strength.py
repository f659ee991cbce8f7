"""How much of a LoRA arrives: the hosted engine's own numbers, and samples against all rows."""

from __future__ import annotations

import pytest
import torch
from hosted_vectors import SAID, tensors
from torch import Tensor

from flux_hotswap.errors import LoraError
from flux_hotswap.ops.hosted import strength as module
from flux_hotswap.ops.hosted.change import Change, DenseChange, LoraChange
from flux_hotswap.ops.hosted.merge import Part, merge
from flux_hotswap.ops.hosted.quantise import Quantised, quantise_weight, widen
from flux_hotswap.ops.hosted.strength import Base, arriving, largest_of_rows, merged_largest

PAIRS = [(case, at) for case, said in SAID["strength"].items() for at in said["at"]]
HEAVY = ("gauss", "heavy tails", "loud rows and columns")


def pair(case: str) -> tuple[Quantised, Part]:
    weight, down, up = (tensors()[f"strength/{case}/{n}"] for n in ("weight", "down", "up"))
    return quantise_weight(weight), Part(up, down)


def lora(part: Part, weight: Quantised) -> LoraChange:
    return LoraChange([part], *weight.data.shape)


def large(
    kind: str, share: float, outlier: float = 0.0, shape: tuple[int, int] = (2048, 1536)
) -> tuple[Quantised, Part]:
    """A weight and factors of rank 16 whose product is a share of it."""
    rows, columns = shape
    generator = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    weight, up, down = normal(rows, columns), normal(rows, 16), normal(16, columns)
    if kind == "heavy tails":
        weight = weight / (normal(rows, columns).square() + normal(rows, columns).square()).sqrt()
    if kind == "loud rows and columns":
        weight = weight * normal(rows, 1).mul(0.5).exp() * normal(columns).mul(0.3).exp()
    if kind != "gauss":
        up, down = up * normal(rows, 1).mul(0.6).exp(), down * normal(columns).mul(0.6).exp()
    weight = weight.clamp(-20, 20)
    weight = weight * 0.03 * len(weight.flatten()) ** 0.5 / weight.norm()
    if outlier:
        weight[700, 900] = outlier
    ratio = (share * weight.norm() / (up @ down).norm()).sqrt()
    part = Part((up * ratio).to(torch.float16), (down * ratio).to(torch.float16))
    return quantise_weight(weight.to(torch.bfloat16)), part


@pytest.mark.parametrize(("case", "at"), PAIRS)
def test_pairs(case: str, at: str) -> None:
    weight, part = pair(case)
    found = arriving(Base.of(weight), lora(part, weight), float(at))
    assert found.strength == pytest.approx(SAID["strength"][case]["at"][at], abs=1e-5)
    assert found.error == 0
    if at == "1.5":
        assert found.scale == SAID["strength"][case]["scale_after"]


@pytest.mark.parametrize("shape", [(2048, 1536), (640, 9217)], ids=["tall", "wide"])
@pytest.mark.parametrize("share", [0.0075, 0.0125, 0.05])
@pytest.mark.parametrize("kind", HEAVY)
def test_a_sample_is_near_all_rows(kind: str, share: float, shape: tuple[int, int]) -> None:
    weight, part = large(kind, share, shape=shape)
    base, change = Base.of(weight), lora(part, weight)
    whole = arriving(base, change, 1.5, accuracy=0)
    found = arriving(base, change, 1.5)
    assert abs(found.strength - whole.strength) <= max(0.01, 3 * found.error)
    assert found.error <= 0.01
    assert found.scale == whole.scale
    assert found.elements <= module._MOST < whole.elements


@pytest.mark.parametrize("outlier", [0.0, 1.3, 2.6, -1.7])
@pytest.mark.parametrize("share", [0.0125, 0.3])
def test_the_largest_number_is_that_of_the_whole_sum(outlier: float, share: float) -> None:
    weight, part = large("heavy tails", share, outlier)
    found = merged_largest(Base.of(weight), lora(part, weight), 1.5)
    assert float(448 / found) == float(merge(weight, [part], 1.5).scale)


def test_rows_that_cannot_be_the_largest_are_not_read() -> None:
    weight, part = large("gauss", 0.0125, outlier=2.6)
    base, read = Base.of(weight), list[int]()

    def reading(index: Tensor, columns: slice) -> Tensor:
        read.extend(index.tolist())
        return base.read(index, columns)

    merged_largest(Base(reading, base.largest, base.columns), lora(part, weight), 1.5)
    assert read == [700]


@pytest.mark.parametrize("case", SAID["strength"])
def test_largest_of_rows(case: str) -> None:
    weight, _ = pair(case)
    assert torch.equal(largest_of_rows(weight), weight.dequantised().abs().amax(dim=1))


def test_every_code_widens_to_its_number() -> None:
    codes = torch.arange(256, dtype=torch.uint8)[torch.arange(256) % 128 != 127]  # without NaN
    data = codes.view(torch.float8_e4m3fn)
    assert torch.equal(widen(data).view(torch.int32), data.to(torch.float32).view(torch.int32))


def parts_and_dense() -> tuple[Quantised, list[Part], Tensor]:
    weight, part = large("gauss", 0.02)
    ranges = ((0, 512), (512, 1024), (1536, 2048))
    parts = [Part(part.up[a:b], part.down, start=a, fused=True) for a, b in ranges]
    dense = part.up.to(torch.float32) @ part.down.to(torch.float32)
    dense[1024:1536] = 0
    return weight, parts, dense


def test_parts_of_a_fused_layer_are_one_change() -> None:
    weight, parts, dense = parts_and_dense()
    base = Base.of(weight)
    split, whole = LoraChange(parts, *weight.data.shape), DenseChange(dense)
    assert not split.share[1024:1536].any()
    a, b = (arriving(base, change, 1.5, accuracy=0) for change in (split, whole))
    assert a.strength == pytest.approx(b.strength, abs=0.002)  # only one is rounded to fp16
    index = torch.tensor([3, 600, 1200, 2000])
    assert torch.allclose(split.read(index, 1.5)[0], dense[index], atol=1e-6)


def test_an_alpha_that_the_hosted_engine_leaves_out_makes_the_rest_stronger() -> None:
    weight, part = large("gauss", 0.02)
    base = Base.of(weight)
    plain = arriving(base, lora(part, weight), 1.5, accuracy=0).strength
    kept = Part(part.up, part.down, alpha=8.0, fused=True)
    assert arriving(base, lora(kept, weight), 1.5, accuracy=0).strength == pytest.approx(2 * plain)
    single = Part(part.up, part.down, alpha=8.0)
    halved = arriving(base, lora(single, weight), 3.0, accuracy=0).strength
    assert halved == pytest.approx(2 * plain, abs=0.001)


@pytest.mark.parametrize("coefficient", [1.5, -1.5, 0.0])
def test_signs(coefficient: float) -> None:
    weight, part = pair("4_t4_rel0.025")
    found = arriving(Base.of(weight), lora(part, weight), coefficient).strength
    assert found * coefficient > 0 or found == coefficient == 0


def test_a_lora_of_zeros_arrives_whole() -> None:
    weight, part = large("gauss", 0.02)
    nothing = Part(torch.zeros_like(part.up), part.down)
    assert arriving(Base.of(weight), lora(nothing, weight), 1.5).strength == 1.5


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("side", ["up", "down", "dense"])
def test_a_damaged_lora_is_refused(side: str, bad: float) -> None:
    weight, part = pair("0_gauss_rel0.005")
    factors = {"up": part.up.clone(), "down": part.down.clone(), "dense": torch.zeros(256, 256)}
    factors[side][0, 0] = bad
    change: Change = lora(Part(factors["up"], factors["down"]), weight)
    if side == "dense":
        change = DenseChange(factors["dense"])
    with pytest.raises(LoraError, match="NaN or infinity"):
        arriving(Base.of(weight), change, 1.5)


@pytest.mark.parametrize("case", SAID["strength"])
def test_a_dense_change_is_the_same(case: str) -> None:
    weight, part = pair(case)
    dense = DenseChange(part.up.float() @ part.down.float())
    found = arriving(Base.of(weight), dense, 1.5).strength
    wanted = arriving(Base.of(weight), lora(part, weight), 1.5).strength
    assert found == pytest.approx(wanted, abs=0.01)


# --- at FLUX's width ---


def wide(kind: str, size: float) -> tuple[Quantised, Part]:
    """A weight [3072,3072], and a LoRA of a size relative to it."""
    generator = torch.Generator().manual_seed(7)
    weight = 0.03 * torch.randn(3072, 3072, generator=generator)
    if kind == "heavy tails":
        weight *= torch.where(torch.randn(3072, 3072, generator=generator).abs() > 3.5, 20.0, 1.0)
    if kind == "loud rows":
        weight[::97] *= 8
    up, down = (
        torch.randn(3072, 16, generator=generator),
        torch.randn(16, 3072, generator=generator),
    )
    up *= size * float(weight.std()) / float((up @ down).std())
    part = Part(up.to(torch.bfloat16), down.to(torch.bfloat16))
    return quantise_weight(weight.to(torch.bfloat16)), part


@pytest.mark.parametrize("size", [0.0075, 0.02])
@pytest.mark.parametrize("kind", ["even", "heavy tails", "loud rows"])
def test_a_sample_of_rows_is_within_a_hundredth(kind: str, size: float) -> None:
    weight, part = wide(kind, size)
    base, change = Base.of(weight), lora(part, weight)
    sampled, whole = arriving(base, change, 1.5), arriving(base, change, 1.5, accuracy=0)
    assert whole.error == 0
    assert sampled.strength == pytest.approx(whole.strength, abs=0.012)
    assert sampled.elements < 3072 * 3072 / 2
    assert sampled.scale == whole.scale, "the scale is that of the whole sum"


@pytest.mark.parametrize("kind", ["even", "heavy tails", "loud rows"])
def test_the_largest_number_of_the_sum_is_found(kind: str) -> None:
    weight, part = wide(kind, 0.05)
    base, change = Base.of(weight), lora(part, weight)
    rows = torch.arange(3072)
    delta = change.read(rows, 1.5)[1]
    wanted = (base.read(rows, slice(None)).bfloat16().float() + delta).bfloat16().abs().amax()
    assert float(merged_largest(base, change, 1.5)) == max(1.0, float(wanted))
