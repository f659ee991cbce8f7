"""How much of a LoRA arrives on the hosted model, layer by layer, from the weights that are loaded.

There go_fast keeps the blocks in e4m3 and rounds them again when a LoRA was added, which takes a
part of it away (`ops.hosted.strength`). Here a LoRA runs beside the weight at the strength that is
left of it there, without the noise that the rounding leaves.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..ops.checkpoint.layout import is_block_linear
from ..ops.lora.changes import Place
from .room import make_room
from .rows import Rows
from .unpatched import unpatched

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from torch import Tensor

    from ..ops.hosted.change import Change
    from ..ops.hosted.merge import Part
    from ..ops.hosted.strength import Base

KEPT: Final = 32
"""So many results are kept for a model; the oldest go first."""

_ATTRIBUTE: Final = "flux_hotswap_arrivals"
_PREFIX: Final = "diffusion_model."


@dataclass(frozen=True)
class Arrivals:
    """What arrives of a LoRA.

    Attributes:
        strengths: of the hosted model's layers, by the names of their weights.
        whole: the strength of all others, which are not rounded there.
        mean: of all, by how much of the LoRA is in each.
    """

    strengths: Mapping[str, float]
    whole: float
    mean: float

    def of(self, name: str) -> float:
        """Return the strength of a weight's patches."""
        return self.strengths.get(name, self.whole)

    def __str__(self) -> str:
        """Return it in words."""
        found = self.strengths.values()
        spread = f", {min(found):.2f} to {max(found):.2f} by layer" if found else ""
        return f"{self.mean:.3g} as on the hosted model{spread}"


def everywhere(strength: float) -> Arrivals:
    """Return that a LoRA arrives whole."""
    return Arrivals({}, strength, strength)


def arrivals_of(
    model: ModelPatcher, changes: Mapping[str, Change], coefficient: float, key: object, device: Any
) -> Arrivals:
    """Return what arrives of a LoRA on a model, computed once for file, model and strength.

    Args:
        model: holds the weights; what is patched into them at the moment does not count.
        changes: what the LoRA does to each weight, by the core's names.
        coefficient: what the hosted model adds it with.
        key: tells files apart.
        device: where large weights are looked at.
    """
    from ..ops.hosted.strength import arriving

    known = _known(model.model)
    found = known.results.get((key, coefficient))
    if found is None:
        make_room(device)
        layers = dict(model.model.named_modules())
        strengths = {}
        for name, change in changes.items():
            if is_block_linear(name.removeprefix(_PREFIX)):
                rows = Rows.of(layers[name.removesuffix(".weight")], unpatched(model, name))
                base = known.base(name, rows, device)
                strengths[name] = arriving(base, change, coefficient).strength
        found = Arrivals(strengths, coefficient, _mean(changes, strengths, coefficient))
        known.keep((key, coefficient), found)
    return found


def _mean(changes: Mapping[str, Change], strengths: Mapping[str, float], whole: float) -> float:
    shares = {name: float(change.share.sum()) for name, change in changes.items()}
    total = sum(shares.values())
    if not total:
        return whole
    return sum(share * strengths.get(name, whole) for name, share in shares.items()) / total


class Known:
    """What was computed for a model.

    Attributes:
        results: by file and coefficient.
    """

    def __init__(self) -> None:
        self.results: OrderedDict[object, Arrivals] = OrderedDict()
        self._largest: dict[str, Tensor] = {}

    def keep(self, key: object, found: Arrivals) -> None:
        """Keep a result."""
        self.results[key] = found
        while len(self.results) > KEPT:
            self.results.popitem(last=False)

    def base(self, name: str, rows: Rows, device: Any) -> Base:
        """Return a layer's weight on the hosted engine's grid."""
        from ..ops.hosted.quantise import E4M3, E4M3_MAX, quantise, scale_for, widen
        from ..ops.hosted.strength import Base

        largest = self._largest.get(name)
        if largest is None:
            largest = self._largest[name] = rows.largest(device)
        scale = scale_for(largest.amax(), E4M3_MAX)

        def on_grid(values: Tensor) -> Tensor:
            return widen(quantise(values, scale, E4M3_MAX, E4M3)) / scale

        def read(index: Tensor, columns: slice) -> Tensor:
            return on_grid(rows.read(index)[:, columns].cpu())

        return Base(read, on_grid(largest), rows.values.shape[1])


def _known(network: Any) -> Known:
    found = getattr(network, _ATTRIBUTE, None)
    if found is None:
        found = Known()
        setattr(network, _ATTRIBUTE, found)
    return found


def changes_of(
    patches: Mapping[Any, Any], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Change]:
    """Return what patches change of each weight; without those that nobody knows beforehand.

    Args:
        patches: by the core's keys, a name or (name, (dimension, start, length)).
        shapes: of the weights, by their names.
    """
    by_name: dict[str, list[tuple[Any, Any]]] = {}
    for key, patch in patches.items():
        place = Place(key)
        name = place.weight
        if name.startswith(_PREFIX) and name.endswith(".weight"):
            by_name.setdefault(name, []).append((patch, place.offset))
    found = {name: change_of(parts, shapes[name]) for name, parts in by_name.items()}
    return {name: change for name, change in found.items() if change is not None}


def change_of(patches: Sequence[tuple[Any, Any]], shape: tuple[int, ...]) -> Change | None:
    """Return what patches change of a weight; None if that is not known without the weight.

    Args:
        patches: (patch, offset) as the core has them.
        shape: [N,K] of the weight.
    """
    import torch

    from ..ops.hosted.change import DenseChange, LoraChange

    fused = len(patches) > 1 or patches[0][1] is not None
    parts: list[Part] = []
    for patch, offset in patches:
        part = part_of(patch, offset, fused)
        if part is None:
            break
        parts.append(part)
    else:
        return LoraChange(parts, *shape)
    if not all(_is_absolute(patch) for patch, _ in patches):
        return None
    import comfy.lora

    entries = [(1.0, patch, 1.0, offset, None) for patch, offset in patches]
    zeros = torch.zeros(shape)
    return DenseChange(comfy.lora.calculate_weight(entries, zeros, "weight", torch.float32))


def part_of(patch: Any, offset: Any, fused: bool) -> Part | None:
    """Return a plain LoRA as the hosted engine reads it; None for anything else."""
    import torch

    from ..ops.hosted.merge import Part

    if getattr(patch, "name", "") != "lora" or (offset is not None and offset[0] != 0):
        return None
    up, down, alpha, mid, dora, *reshape = patch.weights
    if mid is not None or dora is not None or any(value is not None for value in reshape):
        return None
    up, down = up.flatten(start_dim=1), down.flatten(start_dim=1)
    if up.dtype != down.dtype or up.dtype not in (torch.float16, torch.bfloat16):
        up, down = up.to(torch.float32), down.to(torch.float32)
    start = 0 if offset is None else offset[1]
    return Part(up, down, start, None if alpha is None else float(alpha), fused)


_DORA: Final = {"lora": 4, "loha": 7, "lokr": 8}
"""Where the core's patches of a kind have their DoRA magnitudes."""


def _is_absolute(patch: Any) -> bool:
    """Whether what a patch changes does not depend on the weight, as DoRA's and OFT's does."""
    kind = getattr(patch, "name", None)
    if kind is None:
        return isinstance(patch, tuple) and patch[0] == "diff"
    return kind in _DORA and patch.weights[_DORA[kind]] is None
