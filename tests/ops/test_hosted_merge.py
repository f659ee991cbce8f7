"""LoRAs merged into a weight in fp8, as the hosted engine merges them."""

from __future__ import annotations

import pytest
import torch
from hosted_vectors import DTYPES, SAID, file_of, model, parts, sha, tensors
from safetensors.torch import load

from flux_hotswap.errors import CheckpointError, LoraError
from flux_hotswap.ops.hosted.merge import Part, change, merge
from flux_hotswap.ops.hosted.quantise import Quantised, quantise_weight

LORA = SAID["lora"]
MAIN, EXTRA = LORA["coefficients"]["main"], LORA["coefficients"]["extra"]
STICKER = 1.5 * 0.75


def lora(dtype: str, which: str, layer: str) -> list[Part]:
    start = f"lora/{dtype}/{which}/"
    state = {k.removeprefix(start): v for k, v in tensors().items() if k.startswith(start)}
    return parts(state, layer)


def told(weight: Quantised) -> list[object]:
    return [sha(weight.data), float(weight.scale)]


@pytest.mark.parametrize("layer", LORA["layers"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_main_then_extra_and_back(dtype: str, layer: str) -> None:
    name, states = LORA["layers"][layer], LORA["states"][dtype]
    base = quantise_weight(model("dev")[f"{name}.weight"])
    main, extra = (lora(dtype, which, name) for which in ("main", "extra"))
    first = merge(base, main, MAIN)
    assert told(first) == states["after main"][layer]
    assert told(merge(first, extra, EXTRA)) == states["after main, then extra"][layer]
    assert told(base) == states["before"][layer] == states["after removing main"][layer]


@pytest.mark.parametrize("name", ["dev", "schnell"])
def test_a_trained_lora(name: str) -> None:
    sticker = load(file_of("sticker"))
    found = {
        layer: told(merge(quantise_weight(model(name)[f"{layer}.weight"]), own, STICKER))
        for layer in SAID["layers"][name]
        if (own := parts(sticker, layer))
    }
    assert found == {layer: said[3:] for layer, said in SAID["layers"][name].items()}


@pytest.mark.parametrize("case", SAID["strength"])
def test_merged_pairs(case: str) -> None:
    said = SAID["strength"][case]
    weight, down, up = (tensors()[f"strength/{case}/{n}"] for n in ("weight", "down", "up"))
    base = quantise_weight(weight)
    assert told(base) == [said["base"], said["scale_before"]]
    assert told(merge(base, [Part(up, down)], 1.5)) == [said["merged"], said["scale_after"]]


def small_part(**more: object) -> Part:
    generator = torch.Generator().manual_seed(2)
    up, down = (torch.randn(s, generator=generator, dtype=torch.float32) for s in ((6, 2), (2, 8)))
    return Part(up.to(torch.float16), down.to(torch.float16), **more)  # pyright: ignore[reportArgumentType]


def test_alpha_counts_except_in_fused_layers() -> None:
    whole, half = small_part(), small_part(alpha=1.0)
    assert (whole.ratio, half.ratio) == (1.0, 0.5)
    assert torch.equal(change(half, 1.0), change(whole, 0.5))
    assert torch.equal(change(small_part(alpha=1.0, fused=True), 1.0), change(whole, 1.0))


def test_the_change_is_rounded_twice_in_the_factors_dtype() -> None:
    part = small_part()
    once = (part.up.double() @ part.down.double()).to(torch.float16)
    assert torch.equal(change(part, 1.7), (once.double() * 1.7).to(torch.float16))


def test_only_its_own_rows_change() -> None:
    generator = torch.Generator().manual_seed(3)
    base = quantise_weight(torch.randn(16, 8, generator=generator).mul(0.1).to(torch.bfloat16))
    merged = merge(base, [small_part(start=4)], 0.01)
    same = (merged.data.to(torch.float32) == base.data.to(torch.float32)).all(dim=1)
    assert same[:4].all() and same[10:].all()
    assert not same[4:10].all()


@pytest.mark.parametrize(
    ("rows", "columns", "start"),
    [(5, 8, 0), (6, 9, 0), (8, 8, 4)],
    ids=["fewer rows", "other columns", "rows beyond the end"],
)
def test_a_part_for_another_size_is_refused(rows: int, columns: int, start: int) -> None:
    base = quantise_weight(torch.ones(rows, columns, dtype=torch.bfloat16))
    with pytest.raises(LoraError, match="do not fit"):
        merge(base, [small_part(start=start)], 1.0)


def test_a_change_that_is_no_number_is_refused() -> None:
    base = quantise_weight(torch.ones(6, 8, dtype=torch.bfloat16))
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        merge(base, [small_part()], float("nan"))
