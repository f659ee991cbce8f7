"""How strong a LoRA arrives with go_fast: on the hosted model, here, and if all of it did.

    python bench/strength.py        # about a minute

A weight of FLUX's width with heavy tails, LoRAs of rank 16 of five sizes, four lora_scales.
"hosted" merges the LoRA into the fp8 weight as the hosted engine does and measures what is left of
it; "ours" is the strength that go_fast_lora `hosted` finds from a sample of rows of the int8 weight
and applies; "whole" is 1.5 times the scale. Writes bench/results/strength.json.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import common

sys.path.insert(0, str(common.ROOT))

import torch
from torch import Tensor

from flux_hotswap.ops.hosted.change import LoraChange
from flux_hotswap.ops.hosted.merge import Part, merge
from flux_hotswap.ops.hosted.quantise import (
    E4M3,
    E4M3_MAX,
    quantise,
    quantise_weight,
    scale_for,
    widen,
)
from flux_hotswap.ops.hosted.strength import Base, arriving
from flux_hotswap.ops.int8 import dequantise, group_of
from flux_hotswap.ops.int8 import quantise as to_int8

WIDTH = 3072
SIZES = (0.0025, 0.0075, 0.0125, 0.025, 0.05)
SCALES = (0.25, 0.5, 1.0, 1.5)


def weight(height: int, width: int) -> Tensor:
    """Return a weight with heavy tails, in bf16."""
    generator = torch.Generator().manual_seed(3)
    made = 0.02 * torch.randn(height, width, generator=generator)
    made *= torch.where(torch.randn(height, width, generator=generator).abs() > 3.5, 5.0, 1.0)
    return made.to(torch.bfloat16)


def lora(height: int, width: int, size: float) -> Part:
    """Return a LoRA whose change has a size relative to the weight's."""
    generator = torch.Generator().manual_seed(4)
    up = torch.randn(height, 16, generator=generator)
    down = torch.randn(16, width, generator=generator)
    up *= size * 0.02 / float((up[:512] @ down).std())
    return Part(up.to(torch.bfloat16), down.to(torch.bfloat16))


def from_int8(matrix: Tensor) -> Base:
    """Return the hosted grid as it is found from a weight that is loaded in int8."""
    group = group_of(matrix.shape[1])
    values, scale = to_int8(matrix.float(), group)
    rows = dequantise(values, scale, group).to(torch.bfloat16)
    largest = rows.abs().amax(dim=1)
    hosted = scale_for(largest.amax(), E4M3_MAX)

    def on_grid(numbers: Tensor) -> Tensor:
        return widen(quantise(numbers, hosted, E4M3_MAX, E4M3)) / hosted

    def read(index: Tensor, columns: slice) -> Tensor:
        rows = dequantise(values[index], scale[index], group).to(torch.bfloat16)
        return on_grid(rows[:, columns])

    return Base(read, on_grid(largest), matrix.shape[1])


def merged(matrix: Tensor, part: Part, coefficient: float) -> float:
    """Return what is left of a LoRA after the hosted engine's own merge."""
    base = quantise_weight(matrix)
    effect = merge(base, [part], coefficient).dequantised() - base.dequantised()
    change = part.up.float() @ part.down.float()
    return float((effect * change).sum(dtype=torch.float64) / change.square().sum())


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=common.RESULTS / "strength.json")
    options = parser.parse_args()
    matrix = weight(WIDTH, WIDTH)
    ours = from_int8(matrix)
    rows: list[dict[str, Any]] = []
    for size in SIZES:
        part = lora(WIDTH, WIDTH, size)
        for scale in SCALES:
            c = 1.5 * scale
            there = merged(matrix, part, c)
            here = arriving(ours, LoraChange([part], WIDTH, WIDTH), c).strength
            row = {"size": size, "scale": scale, "hosted": there, "ours": here, "whole": c}
            rows.append({key: round(value, 4) for key, value in row.items()})
            print(
                f"change of {size:.2%}, scale {scale:4}: hosted {there:6.3f}   ours {here:6.3f}"
                f" ({here / there:.2f} of it)   whole {c:6.3f} ({c / there:.2f} of it)"
            )
    part = lora(WIDTH, WIDTH, 0.0125)
    change = LoraChange([part], WIDTH, WIDTH)
    each = [common.seconds(lambda: arriving(ours, change, 1.5)) for _ in range(9)]
    report = {"machine": common.machine("torch"), "rows": rows, "one_layer": common.summary(each)}
    print(f"one layer: {report['one_layer']['seconds_median'] * 1e3:.1f} ms on one core")
    common.write(options.output, report)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
