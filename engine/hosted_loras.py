"""LoRAs on engine fp8: merged into the weights and rounded again, as on the hosted model.

A clone carries its merged weights as object patches, which ComfyUI puts in when the clone is loaded
and takes out again; the weights of the file are not touched.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import comfy.lora
import comfy.model_management
import torch

from ..ops.hosted.merge import Part, merge
from ..ops.hosted.quantise import Quantised, quantise_weight
from ..ops.lora.changes import Place
from .arrival import part_of
from .fetching import progress_bar
from .hosted import hosted_layers
from .models import interruptible
from .room import make_room
from .stored_linear import parameter
from .unpatched import unpatched

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from torch import Tensor

Patches = list[tuple[Any, Any]]
"""(patch, offset) as the core has them."""


def merge_patches(
    model: ModelPatcher, patches: Mapping[Any, Any], strength: float
) -> tuple[set[Any], dict[Any, Any]]:
    """Merge what changes weights in fp8, on top of what this clone has already.

    Args:
        model: a clone that may be changed.
        patches: by the core's keys, a name or (name, (dimension, start, length)).
        strength: what the change is multiplied by.

    Returns:
        The keys that were merged, and the patches that are left for the core.

    Raises:
        CheckpointError: the sum holds NaN or infinity.
    """
    layers = hosted_layers(model.model)
    chosen: dict[str, Patches] = {}
    done: set[Any] = set()
    for key, patch in patches.items():
        place = Place(key)
        if place.layer in layers and not place.reorders:
            chosen.setdefault(place.layer, []).append((patch, place.offset))
            done.add(key)
    tell = interruptible(progress_bar())
    device = comfy.model_management.get_torch_device()
    if chosen:
        make_room(device)
    for count, (layer, parts) in enumerate(chosen.items()):
        tell(count, len(chosen))
        _put(model, layer, _merged(_weight_of(model, layer, device), parts, strength))
    if chosen:
        tell(len(chosen), len(chosen))
        model.patches_uuid = uuid.uuid4()  # ComfyUI then loads the weights anew
    return done, {key: patch for key, patch in patches.items() if key not in done}


_FIELDS = ("weight", "scale", "scale_reciprocal")


def _weight_of(model: ModelPatcher, layer: str, device: torch.device) -> Quantised:
    """Return a layer's weight as this clone has it, whichever clone is loaded."""
    found = (unpatched(model, f"{layer}.{field}") for field in _FIELDS)
    return Quantised(*(value.detach().to(device) for value in found))


def _put(model: ModelPatcher, layer: str, weight: Quantised) -> None:
    values = (weight.data, weight.scale, weight.reciprocal)
    for field, value in zip(_FIELDS, values, strict=True):
        model.add_object_patch(f"{layer}.{field}", parameter(value.to(model.offload_device)))


def _merged(weight: Quantised, patches: Patches, strength: float) -> Quantised:
    fused = len(patches) > 1 or patches[0][1] is not None
    parts = [part_of(patch, offset, fused) for patch, offset in patches]
    if None not in parts:
        own = [_on(part, weight.data.device) for part in parts if part is not None]
        return merge(weight, own, strength)
    # The hosted model knows plain LoRAs only: all others are added as the core adds them.
    entries = [(strength, patch, 1.0, offset, None) for patch, offset in patches]
    made: Tensor = comfy.lora.calculate_weight(
        entries, weight.dequantised(), "weight", torch.float32
    )
    return quantise_weight(made.to(torch.bfloat16))


def _on(part: Part, device: torch.device) -> Part:
    return Part(part.up.to(device), part.down.to(device), part.start, part.alpha, part.fused)
