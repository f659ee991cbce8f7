"""FLUX.1 weights as the hosted fast engine holds them: from an ordinary checkpoint, or its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from ...errors import CheckpointError
from ..hosted.quantise import quantise_weight, widen
from .convert import OnProgress, Source, check_finite, rows_of, source_bytes
from .hosted_file import DATA, SCALES
from .layout import Target, is_block_linear

_NAN: Final = 0x7F
"""The one code of e4m3 that is no number, without its sign."""


def quantise(
    source: Source, targets: list[Target], device: torch.device, on_progress: OnProgress
) -> dict[str, Tensor]:
    """Return a checkpoint's tensors, the blocks' weights in e4m3 with their scales beside them.

    Args:
        source: bf16, fp16 or float32.
        targets: its tensors, see `layout.targets`.
        device: where it is computed.
        on_progress: hears how far it is.

    Returns:
        By published names: `L.weight` e4m3, `L.scale` and `L.scale_reciprocal` float32 without
        dimensions for a linear layer L in a block; all else bf16.

    Raises:
        CheckpointError: a tensor holds NaN or infinity, or is of a dtype that cannot be quantised.
        OSError: the file cannot be read.
    """
    total = sum(source_bytes(source, target) for target in targets)
    state: dict[str, Tensor] = {}
    done = 0
    with source.path.open("rb", buffering=0) as file:
        for target in targets:
            parts: list[Tensor] = []
            for rows in rows_of(file, source, target):
                on_progress(done, total)
                done += rows.nbytes
                parts.append(rows.to(torch.bfloat16))
            weight = torch.cat(parts).reshape(target.shape)
            check_finite(source, target, weight.abs().amax())
            if not is_block_linear(target.name):
                state[target.name] = weight
                continue
            made = quantise_weight(weight.to(device))
            layer = target.name.removesuffix(".weight")
            state[target.name] = made.data.cpu()
            state[f"{layer}.scale"] = made.scale.cpu()
            state[f"{layer}.scale_reciprocal"] = made.reciprocal.cpu()
    on_progress(total, total)
    return state


def adopt(tensors: Mapping[str, Tensor], file: str, on_progress: OnProgress) -> dict[str, Tensor]:
    """Return the tensors of a file of the hosted fast engine, named as `quantise` names them.

    Args:
        tensors: of the file, whose head `hosted_file.check` has passed.
        file: its name, for the error.
        on_progress: hears how far it is; what it raises ends the work.

    Returns:
        The same as `quantise`, with `L.input_scale` beside each weight.

    Raises:
        CheckpointError: a number cannot be right.
    """
    state: dict[str, Tensor] = {}
    for count, (name, tensor) in enumerate(tensors.items()):
        on_progress(count, len(tensors))
        layer, _, kind = name.rpartition(".")
        if f".{kind}" == DATA:
            _refuse_if(has_nan(tensor), file, name, "NaN")
            state[f"{layer}.weight"] = tensor
        elif f"{layer}{DATA}" not in tensors:
            _refuse_if(not bool(torch.isfinite(tensor).all()), file, name, "NaN or infinity")
            state[name] = tensor
        elif kind == "weight":
            _refuse_if(bool(tensor.any()), file, name, "a number other than zero")
        elif kind in SCALES:
            value = float(tensor)
            _refuse_if(not 0 < value < float("inf"), file, name, f"{value:g}")
            state[name] = tensor
        else:
            state[name] = tensor
    on_progress(len(tensors), len(tensors))
    return state


def _refuse_if(wrong: bool, file: str, name: str, what: str) -> None:
    if wrong:
        raise CheckpointError(
            f"{file} is damaged: {name} holds {what}. Download it again, or use another file"
        )


def has_nan(data: Tensor) -> bool:
    """Whether e4m3 data holds a code that is no number."""
    parts = data.view(torch.uint8).flatten().split(2**24)
    return any(bool((part.bitwise_and(_NAN) == _NAN).any()) for part in parts)


def dequantise(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what `adopt` gives as an ordinary bf16 model."""
    made: dict[str, Tensor] = {}
    for name, tensor in state.items():
        layer, _, kind = name.rpartition(".")
        reciprocal = state.get(f"{layer}.scale_reciprocal")
        if reciprocal is None or kind == "bias":
            made[name] = tensor
        elif kind == "weight":
            made[name] = (widen(tensor) * reciprocal).to(torch.bfloat16)
    return made
