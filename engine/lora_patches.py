"""A LoRA file's modules as patches of the core.

The core reads by itself only what it was given here: nothing that it leaves aside counts as used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ..ops.lora.parts import MAGNITUDES, Kind

if TYPE_CHECKING:
    from torch import Tensor

_CORE: Final = {"up": "lora_up.weight", "down": "lora_down.weight", "mid": "lora_mid.weight"}
_CORE_ALSO: Final = {name: f"{name}.weight" for name in ("a1", "a2", "b1", "b2")}
_ONE: Final = "module"


def patch_of(kind: Kind, parts: Mapping[str, Tensor]) -> Any:
    """Return the core's patch that a module's tensors make.

    Args:
        kind: how the change is written.
        parts: its tensors by their slots, those alone that are to be used.
    """
    import comfy.lora
    import torch

    if kind.name in ("diff", "set"):
        (tensor,) = parts.values()
        return kind.name, (tensor,)
    plain = {slot: tensor for slot, tensor in parts.items() if slot not in MAGNITUDES}
    if plain.keys() != parts.keys():
        from .relative import Dora

        (slot,) = parts.keys() - plain.keys()
        return Dora(set(), [patch_of(kind, plain), parts[slot], slot == "magnitude"])
    if kind.name == "oft":
        from .relative import Turned

        constraint = float(parts["alpha"]) if "alpha" in parts else 0.0
        return Turned(set(), [parts["oft_blocks"], parts.get("rescale"), constraint])
    spelled = {f"{_ONE}.{(_CORE | _CORE_ALSO).get(slot, slot)}": parts[slot] for slot in parts}
    alpha = parts.get("alpha")
    if alpha is not None:
        spelled[f"{_ONE}.alpha"] = alpha.to(torch.float32).reshape(())
    made: dict[str, Any] = comfy.lora.load_lora(spelled, {_ONE: _ONE}, log_missing=False)
    if kind.name == "glora":
        from .relative import Glora

        return Glora(set(), [made[_ONE]])
    return made[_ONE]
