"""Stage 2: how fast this card copies, and multiplies at FLUX's shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from runtime import inside
from torch import Tensor

from .kit import Kit

SHAPES = ((9216, 3072), (3072, 3072), (12288, 3072), (3072, 12288), (21504, 3072), (3072, 15360))
"""N and K of the blocks' layers."""

TOKENS = (512, 4096, 4608)
FP8 = torch.float8_e4m3fn


def run(kit: Kit) -> None:
    """Time a copy, then every kind of matmul."""
    kit.start_comfyui()
    copy(kit, 2**22 if kit.small else 2 * 10**9)
    shapes, tokens = (((256, 256),), (64,)) if kit.small else (SHAPES, TOKENS)
    for count in tokens:
        for height, width in shapes:
            multiply(kit, count, height, width)
        if kit.left < 2:
            break


def copy(kit: Kit, size: int) -> None:
    """Time a copy of so many bytes."""
    source = torch.ones(size, dtype=torch.int8, device=kit.device)
    target = torch.empty_like(source)
    taken = kit.median(lambda: target.copy_(source), runs=5)
    kit.note("a copy reads and writes", round(2 * size / taken / 1e9), "GB/s")


def multiply(kit: Kit, count: int, height: int, width: int) -> None:
    """Time one shape in every way that runs."""
    found: dict[str, float] = {}
    for name, call in ways(kit.device, count, height, width).items():
        what = f"{name}, M {count} N {height} K {width}"
        if kit.attempt(what, call):
            found[name] = kit.median_of_short(call, runs=5)
    work = 2 * count * height * width
    for name, taken in found.items():
        kit.note(
            f"{name}, M {count} N {height} K {width}",
            round(work / taken / 1e12, 1),
            "TFLOP/s",
            microseconds=round(taken * 1e6, 1),
        )


def ways(
    device: torch.device, count: int, height: int, width: int
) -> dict[str, Callable[[], Tensor]]:
    """Return every kind of matmul; the int8 one quantises its tokens, the fp8 ones have theirs."""
    x = torch.randn(count, width, device=device, dtype=torch.bfloat16)
    weight = torch.randn(height, width, device=device, dtype=torch.bfloat16)
    x8, weight8 = x.to(FP8), weight.to(FP8).t()
    one = torch.ones((), device=device)
    rows, columns = torch.ones(count, 1, device=device), torch.ones(1, height, device=device)
    steps = torch.randint(-127, 128, (height, width), device=device, dtype=torch.int8)
    tokens8 = torch.randint(-127, 128, (count, width), device=device, dtype=torch.int8)
    scale = torch.ones(height, 1, device=device)
    group = inside.pack("ops.int8").group_of(width)
    matmul = inside.pack("engine.trial").any_matmul()
    raw: Any = torch  # what torch keeps for itself has no types
    scaled = {"out_dtype": torch.bfloat16}
    made: dict[str, Callable[[], Tensor]] = {
        "bf16": lambda: torch.nn.functional.linear(x, weight),
        "fp8, a scale for each tensor": lambda: raw._scaled_mm(x8, weight8, one, one, **scaled),
        "fp8, a scale for each row": lambda: raw._scaled_mm(x8, weight8, rows, columns, **scaled),
        "int8, the matmul alone": lambda: raw._int_mm(tokens8, steps.t()),
    }
    if matmul is not None:
        made["int8, quantising the tokens"] = lambda: matmul(x, steps, scale, None, group)
    return made
