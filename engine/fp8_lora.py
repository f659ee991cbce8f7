"""LoRAs on a model in fp8: beside its weights where they are two factors, else as patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ..ops.fp8.side import Factors

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

INJECTION: Final = "flux_hotswap_loras"

Sides = Mapping[str, tuple[Factors, ...]]
"""LoRAs by the name of the layer that they belong to."""


def add_beside(
    model: ModelPatcher, patches: Mapping[Any, Any], strength: float
) -> tuple[set[str], dict[Any, Any]]:
    """Put what is a pair of factors beside the weights that are fp8, if there are any.

    Args:
        model: a clone that may be changed.
        patches: by the core's keys, a name or (name, (dimension, start, length)).
        strength: what the change is multiplied by.

    Returns:
        The keys that were added, and the patches that are left for the core.
    """
    layers = fp8_layers(model.model)
    added: dict[str, tuple[Factors, ...]] = {}
    done: set[Any] = set()
    for key, patch in patches.items():
        name, *rest = (key,) if isinstance(key, str) else key
        layer, _, kind = name.rpartition(".")
        if kind != "weight" or layer not in layers:
            continue
        factors = factors_of(patch, strength, rest[0] if rest else None)
        if factors is not None:
            added[layer] = (*added.get(layer, ()), factors)
            done.add(key)
    if added:
        carry(model, added)
    return done, {key: patch for key, patch in patches.items() if key not in done}


def fp8_layers(model: Any) -> dict[str, Any]:
    """Return the layers of a model whose weights are fp8, by their names."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if getattr(layer, "weight_scale", None) is not None and hasattr(layer, "attach")
    }


def shapes_of(model: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's weights, also of those that carry more than the weight."""
    shapes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    for name, layer in fp8_layers(model).items():
        shapes[f"{name}.weight"] = (layer.out_features, layer.in_features)
    return shapes


def factors_of(patch: Any, strength: float, offset: Any) -> Factors | None:
    """Return a patch as two factors; None if it is no plain LoRA."""
    import torch

    if getattr(patch, "name", "") != "lora" or (offset is not None and offset[0] != 0):
        return None
    up, down, alpha, mid, dora, *reshape = patch.weights
    if mid is not None or dora is not None or any(value is not None for value in reshape):
        return None
    up = up.flatten(start_dim=1).to(torch.float32)
    down = down.flatten(start_dim=1).to(torch.float32)
    scale = strength * (1.0 if alpha is None else float(alpha) / len(down))
    start = 0 if offset is None else offset[1]
    return Factors(up * scale, down, start)


def carry(model: ModelPatcher, added: Sides) -> None:
    """Let a clone attach LoRAs while it is the one that runs, beside those that it has."""
    from comfy.patcher_extension import PatcherInjection

    before = model.get_attachment(INJECTION) or Carried({})
    sides = before.plus(added)
    model.set_attachments(INJECTION, sides)
    model.set_injections(INJECTION, [PatcherInjection(sides.attach, sides.detach)])


class Carried:
    """The LoRAs of one clone; never changed.

    Attributes:
        sides: them.
    """

    def __init__(self, sides: Sides) -> None:
        self.sides = sides

    def plus(self, more: Sides) -> Carried:
        """Return these and more."""
        names = {**self.sides, **more}
        return Carried({name: (*self.sides.get(name, ()), *more.get(name, ())) for name in names})

    def attach(self, model: ModelPatcher) -> None:
        """Attach them to the layers; ComfyUI calls this when the clone is loaded."""
        import comfy.utils

        for name, parts in self.sides.items():
            layer = comfy.utils.get_attr(model.model, name)
            layer.attach(parts, model.load_device, id(model))

    def detach(self, model: ModelPatcher) -> None:
        """Detach them, unless another clone's are there."""
        import comfy.utils

        for name in self.sides:
            comfy.utils.get_attr(model.model, name).detach(id(model))
