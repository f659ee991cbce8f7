"""The size of what a module changes, however it is written: it fits its weight or it is said."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flux_hotswap.ops.lora.parts import Module, kind_of
from flux_hotswap.ops.lora.sizes import bias_misfit, magnitude_axis, misfit

N, K = 12, 8


def parts(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    return {slot: torch.zeros(shape) for slot, shape in shapes.items()}


def pair(
    rows: int = N, columns: int = K, rank: int = 2, other: int | None = None
) -> dict[str, Tensor]:
    return parts(up=(rows, rank), down=(rank if other is None else other, columns))


HADA = {"hada_w1_a": (N, 2), "hada_w1_b": (2, K), "hada_w2_a": (N, 3), "hada_w2_b": (3, K)}
GLORA = {"a1": (K, 2), "a2": (2, K), "b1": (N, 2), "b2": (2, K)}

FITS = {
    "pair": pair(),
    "pair of 1x1 convolutions": parts(up=(N, 2, 1, 1), down=(2, K, 1, 1)),
    "DoRA of rows": pair() | parts(dora_scale=(N, 1)),
    "DoRA of rows, flat": pair() | parts(dora_scale=(N,)),
    "DoRA of columns": pair() | parts(dora_scale=(1, K)),
    "DoRA of PEFT": pair() | parts(magnitude=(N,)),
    "LoHa": parts(**HADA),
    "LoKr": parts(lokr_w1=(3, 2), lokr_w2=(4, 4)),
    "LoKr in factors": parts(
        lokr_w1_a=(3, 1), lokr_w1_b=(1, 2), lokr_w2_a=(4, 2), lokr_w2_b=(2, 4)
    ),
    "GLoRA": parts(**GLORA),
    "GLoRA, the first": parts(a1=(2, K), a2=(K, 2), b1=(2, K), b2=(N, 2)),
    "OFT": parts(oft_blocks=(3, 4, 4)),
    "OFT with rescale": parts(oft_blocks=(3, 4, 4), rescale=(N, 1)),
    "BOFT": parts(oft_blocks=(1, 6, 2, 2)),
    "difference": parts(diff=(N, K)),
    "norm": parts(w_norm=(N, K)),
}
MISFITS = {
    "pair, rows": (pair(rows=9), "9x8 instead of 12x8"),
    "pair, columns": (pair(columns=9), "12x9 instead of 12x8"),
    "pair, ranks": (pair(other=3), "ranks 2 and 3"),
    "pair, no matrix": (parts(up=(N,), down=(2, K)), "ranks 0 and 2"),
    "pair with a middle": (pair() | parts(mid=(2, 2, 3, 3)), "convolution"),
    "DoRA": (pair() | parts(dora_scale=(1, 7)), "magnitudes 1x7 for 12x8"),
    "DoRA, turned": (pair() | parts(dora_scale=(K, 1)), "magnitudes 8x1"),
    "DoRA, one number": (pair() | parts(dora_scale=()), "magnitudes one number"),
    "DoRA of PEFT": (pair() | parts(magnitude=(K,)), "magnitudes 8 for 12x8"),
    "LoHa, one side": (parts(**(HADA | {"hada_w2_b": (3, 9)})), "12x9 instead of 12x8"),
    "LoHa, ranks": (parts(**(HADA | {"hada_w1_b": (5, K)})), "ranks 2 and 5"),
    "LoHa, no matrix": (parts(**(HADA | {"hada_w1_a": (N, 2, 1)})), "12x2x1 where a matrix"),
    "LoKr, a factor that is no matrix": (
        parts(lokr_w1=(3, 2), lokr_w2_a=(4, 2, 1), lokr_w2_b=(2, 4)),
        "4x2x1 where a matrix",
    ),
    "LoHa of a convolution": (parts(**HADA, hada_t1=(2, 2, 3, 3)), "convolution"),
    "LoKr": (parts(lokr_w1=(3, 2), lokr_w2=(8, 4)), "24x8 instead of 12x8"),
    "LoKr, the same number of numbers": (
        parts(lokr_w1=(2, 3), lokr_w2=(4, 4)),
        "8x12 instead of 12x8",
    ),
    "LoKr, ranks": (parts(lokr_w1=(3, 2), lokr_w2_a=(4, 2), lokr_w2_b=(3, 4)), "ranks 2 and 3"),
    "LoKr of a convolution": (
        parts(lokr_w1=(3, 2), lokr_w2=(4, 4, 3, 3)),
        "where a matrix belongs",
    ),
    "GLoRA": (parts(**(GLORA | {"b1": (9, 2)})), "factors 8x2, 2x8, 9x2, 2x8 for 12x8"),
    "GLoRA, no matrix": (parts(**(GLORA | {"a1": (K, 1, 2)})), "8x1x2 where a matrix belongs"),
    "OFT": (parts(oft_blocks=(2, 4, 4)), "blocks 2x4x4 for 12 rows"),
    "OFT, no squares": (parts(oft_blocks=(3, 4, 3)), "blocks"),
    "OFT, flat": (parts(oft_blocks=(N, N)), "blocks"),
    "OFT, rescale": (parts(oft_blocks=(3, 4, 4), rescale=(9, 1)), "rescale 9x1"),
    "BOFT, too many": (parts(oft_blocks=(3, 6, 2, 2)), "blocks 3x6x2x2"),
    "BOFT, odd": (parts(oft_blocks=(1, 4, 3, 3)), "blocks"),
    "difference": (parts(diff=(K, N)), "8x12 instead of 12x8"),
    "norm": (parts(w_norm=(N,)), "12 instead of 12x8"),
}


def problem_of(tensors: dict[str, Tensor], wanted: tuple[int, ...] = (N, K)) -> str | None:
    kind = kind_of(Module("x", tensors))
    assert kind is not None
    return misfit(kind, tensors, wanted)


@pytest.mark.parametrize("tensors", FITS.values(), ids=list(FITS))
def test_what_fits_fits(tensors: dict[str, Tensor]) -> None:
    assert problem_of(tensors) is None
    assert problem_of(tensors, (N, K + 1)) or "oft_blocks" in tensors
    assert problem_of(tensors, (N + 1, K))


@pytest.mark.parametrize(("tensors", "words"), MISFITS.values(), ids=list(MISFITS))
def test_what_does_not_is_told(tensors: dict[str, Tensor], words: str) -> None:
    assert words in (problem_of(tensors) or "")


@pytest.mark.parametrize(
    ("shape", "weight", "axis"),
    [
        ((N,), (N, K), 0),
        ((N, 1), (N, K), 0),
        ((1, K), (N, K), 1),
        ((K,), (N, K), None),
        ((N, 1), (N, N), 0),
        ((1, N), (N, N), 1),
        ((N,), (N, N), 0),
        ((1, 1), (1, 1), 0),
        ((2, 6), (N, K), None),
    ],
)
def test_what_magnitudes_are_of(
    shape: tuple[int, ...], weight: tuple[int, ...], axis: int | None
) -> None:
    assert magnitude_axis(torch.zeros(shape), weight) == axis


def test_biases_have_one_size() -> None:
    assert bias_misfit(torch.zeros(N), (N,)) is None
    assert bias_misfit(torch.zeros(N, 1), (N,)) == "12x1 instead of 12"
