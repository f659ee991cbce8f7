"""Stage 3: every way of int8 against float64, and what of a LoRA arrives."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from runtime import inside
from torch import Tensor

from bench import gains

from .kit import Kit, distance

TOKENS = (17, 513, 4095)
SHAPE = (3072, 3072)
SIZES = (1e-4, 1e-3, 3e-3, 1e-2)
RANK = 16


def run(kit: Kit) -> None:
    """Note errors beside those of the same arithmetic on the CPU."""
    kit.start_comfyui()
    errors: dict[str, float] = {}
    height, width = (256, 256) if kit.small else SHAPE
    for count in TOKENS[:2] if kit.small else TOKENS:
        base, errors = (errors_on(kit, device, count, height, width) for device in
                        (torch.device("cpu"), kit.device))  # fmt: skip
        for name, value in errors.items():
            if name not in base:
                continue
            holds = value <= 1.05 * base[name]
            kit.note(f"{name}, M {count}: error", round(value, 5), predicted=f"{base[name]:.5f}",
                     holds=holds)  # fmt: skip
    matmul = inside.pack("engine.trial").any_matmul()
    if matmul is None or "int8" not in errors:
        kit.note("gain of a LoRA", "skipped: nothing multiplies in int8")
        return
    layer = gains.Layer(height, width, 64 if kit.small else 512, kit.device, matmul)
    for row in gains.gains(layer, SIZES, (RANK,)):
        exact, ours, bf16 = (row[name] for name in list(row)[2:5])
        size = f"gain of a LoRA of {row[gains.SIZE]:g} of the weight"
        holds = abs(exact["gain"] - 1) <= 0.02
        kit.note(f"{size}, float32", exact["gain"], predicted="1.00", holds=holds, **exact)
        kit.note(f"{size}, bf16", ours["gain"], predicted=f"as a model in bf16, {bf16['gain']}",
                 **ours)  # fmt: skip


def errors_on(
    kit: Kit, device: torch.device, count: int, height: int, width: int
) -> dict[str, float]:
    """Return the error of each way that runs on a device, with loud channels and tokens."""
    int8 = inside.pack("ops.int8")
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randn(count, width, generator=generator)
    tokens[:, ::97] *= 60
    tokens[::61] *= 15
    matrix = torch.randn(height, width, generator=generator) * 0.02
    tokens, matrix = tokens.bfloat16().to(device), matrix.bfloat16().to(device)
    wanted = tokens.double() @ matrix.double().T
    group = int8.group_of(width)
    values, scale = int8.quantise(matrix.float(), group)
    ways: dict[str, Callable[[], Tensor]] = {
        "int8 storage": lambda: int8.multiply_stored(tokens, values, scale, None, group),
    }
    matmul = inside.pack("engine.trial").any_matmul()
    if matmul is not None:
        ways["int8"] = lambda: matmul(tokens, values, scale, None, group)
    product, fp8 = inside.pack("ops.hosted.linear"), inside.pack("ops.hosted.quantise")
    held, known = fp8.quantise_weight(matrix), fp8.scale_for(tokens.abs().amax(), fp8.E5M2_MAX)
    sums = product.find_product(device)
    ways["fp8"] = lambda: product.linear(sums, tokens, held, None, known)
    found: dict[str, float] = {}

    def note_error(name: str) -> None:
        # Memory of this size that is given out next holds NaN: what a kernel leaves out shows.
        poison = torch.full((count, height), torch.nan, dtype=torch.bfloat16, device=device)
        del poison
        found[name] = distance(ways[name](), wanted)

    for name in ways:
        kit.attempt(f"{name} on {device.type}, M {count}", partial(note_error, name))
    return found
