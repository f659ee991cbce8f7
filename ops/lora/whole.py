"""Whether a LoRA file is whole: its numbers finite, no module with a part missing.

The core finds these out in the middle of sampling, with errors of torch's, or draws in black.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from .parts import Module, kind_of, slots_of

_WORDS: Final = {"up": "lora_up (or lora_B)", "down": "lora_down (or lora_A)"}
_TWINS: Final = ("hada_t1", "hada_t2")
_NARROW: Final = 1
"""Bytes of a float that torch does not compare."""


def not_finite(state: Mapping[str, Tensor]) -> str | None:
    """Return the name of a tensor with a number that is infinite or none at all; None if all are.

    A training that went astray leaves such a file, and it makes black pictures.
    """
    for name, tensor in state.items():
        if not tensor.is_floating_point() or tensor.numel() == 0:
            continue
        wide = tensor.to(torch.float32) if tensor.element_size() <= _NARROW else tensor
        ends = torch.aminmax(wide)  # one of which is what any of them is that is no number
        if not bool(torch.isfinite(ends.min)) or not bool(torch.isfinite(ends.max)):
            return name
    return None


def broken(module: Module) -> str | None:
    """Return what of a module is missing or cannot be; None if it is whole.

    Returns:
        Words that begin with the name of a tensor in the file.
    """
    kind = kind_of(module)
    if kind is None:
        return None
    if slots_of(module, kind) is None:
        first = min(kind.marks & module.parts.keys())
        missing = next(
            min((set(slots) - module.parts.keys() for slots in row), key=len)
            for row in kind.needs
            if not any(module.parts.keys() >= set(slots) for slots in row)
        )
        wanted = " and ".join(_WORDS.get(slot, slot) for slot in sorted(missing))
        return f"{module.label(first)} has no {wanted} beside it"
    twins = [slot for slot in _TWINS if slot in module.parts]
    if len(twins) == 1:
        other = _TWINS[1 - _TWINS.index(twins[0])]
        return f"{module.label(twins[0])} has no {other} beside it"
    return _odd(module)


def _odd(module: Module) -> str | None:
    for slot, tensor in module.parts.items():
        if tensor.numel() == 0:
            return f"{module.label(slot)} is empty ({'x'.join(map(str, tensor.shape))})"
        if slot == "alpha" and tensor.numel() != 1:
            return f"{module.label(slot)} is {tensor.numel()} numbers instead of one"
    return None
