"""LoRAs on a model whose weights are quantised: beside them where they are two factors.

A forward hook on each layer adds what the LoRA makes. The LoRA is there while the clone that
carries it is loaded, and goes without a trace.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ..ops.lora.beside import Factors, Kron, add_change, add_kron, hadamard, stack
from ..ops.lora.changes import Place

if TYPE_CHECKING:
    import torch
    from comfy.model_patcher import ModelPatcher
    from torch import Tensor

INJECTION: Final = "flux_hotswap_loras"

Side = Factors | Kron
Sides = Mapping[str, tuple[Side, ...]]
"""LoRAs by the name of the layer that they belong to."""

log = logging.getLogger(__name__)


def add_beside(
    model: ModelPatcher, patches: Mapping[Any, Any], strength_of: Callable[[str], float]
) -> tuple[set[str], dict[Any, Any]]:
    """Put what need not be written out beside the weights that are quantised, if there are any.

    Args:
        model: a clone that may be changed.
        patches: by the core's keys, a name or (name, (dimension, start, length)).
        strength_of: what the change of a weight is multiplied by, by its name.

    Returns:
        The keys that were added, and the patches that are left for the core.
    """
    layers = quantised_layers(model.model)
    added: dict[str, tuple[Side, ...]] = {}
    done: set[Any] = set()
    for key, patch in patches.items():
        place = Place(key)
        if place.layer not in layers or place.reorders:
            continue
        side = side_of(patch, strength_of(place.weight), place.offset)
        if side is not None:
            added[place.layer] = (*added.get(place.layer, ()), side)
            done.add(key)
    if added:
        carry(model, added)
    return done, {key: patch for key, patch in patches.items() if key not in done}


def quantised_layers(model: Any) -> dict[str, Any]:
    """Return the linear layers of a model whose weights are quantised, by their names."""
    import torch

    whole = (torch.float32, torch.bfloat16, torch.float16)
    layers = linear_layers(model)
    return {n: layer for n, layer in layers.items() if stored_dtype(layer.weight) not in whole}


def linear_layers(model: Any) -> dict[str, Any]:
    """Return the linear layers of a model, by their names."""
    return {name: layer for name, layer in model.named_modules() if hasattr(layer, "in_features")}


def stored_dtype(weight: Tensor) -> torch.dtype:
    """Return the dtype that a weight is kept in; ComfyUI's quantised tensors claim another."""
    inner = getattr(weight, "_qdata", None)
    return weight.dtype if inner is None else inner.dtype


def shapes_of(model: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's weights, as its layers compute with them."""
    return {name: tuple(weight.shape) for name, weight in model.named_parameters()}


def side_of(patch: Any, strength: float, offset: Any) -> Side | None:
    """Return a patch as what runs beside a layer; None if only the weight can have it."""
    read = _READ.get(getattr(patch, "name", ""))
    if read is None or (offset is not None and offset[0] != 0):
        return None
    side = read(patch.weights, strength)
    return side if side is None or offset is None else replace(side, start=offset[1])


def _matrix(tensor: Tensor) -> Tensor:
    import torch

    return tensor.flatten(start_dim=1).to(torch.float32)


def _scale(strength: float, alpha: Any, rank: int) -> float:
    return strength * (1.0 if alpha is None else float(alpha) / rank)


def _lora(weights: Sequence[Any], strength: float) -> Factors | None:
    up, down, alpha, mid, dora, *reshape = weights
    if mid is not None or dora is not None or any(value is not None for value in reshape):
        return None
    return Factors(_matrix(up) * _scale(strength, alpha, len(down)), _matrix(down))


def _loha(weights: Sequence[Any], strength: float) -> Factors | None:
    a1, b1, alpha, a2, b2, *others = weights
    if any(value is not None for value in others):
        return None
    first = _matrix(a1) * _scale(strength, alpha, len(b1)), _matrix(b1)
    return hadamard(first, (_matrix(a2), _matrix(b2)))


def _lokr(weights: Sequence[Any], strength: float) -> Kron | None:
    """Alpha counts where one of the two is in factors; where both are, by the rank of the second.

    As in the core.
    """
    left, right, alpha, left_a, left_b, right_a, right_b, *others = weights
    if any(value is not None for value in others):
        return None
    factor = strength
    for whole, b in ((left, left_b), (right, right_b)):
        factor = _scale(strength, alpha, len(b)) if whole is None else factor
    left = _matrix(left_a) @ _matrix(left_b) if left is None else _matrix(left)
    right = _matrix(right_a) @ _matrix(right_b) if right is None else _matrix(right)
    return Kron(left * factor, right)


_READ: Final[Mapping[str, Callable[[Sequence[Any], float], Side | None]]] = {
    "lora": _lora,
    "loha": _loha,
    "lokr": _lokr,
}
"""By the core's names for adapters."""


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
        hooks = attached(model.model)
        hooks.remove()
        hooks.holder = id(model)
        dtype = model.model.manual_cast_dtype or model.model.get_dtype()
        for name, parts in self.sides.items():
            hooks.add(name, parts, model.load_device, dtype)

    def detach(self, model: ModelPatcher) -> None:
        """Detach them, unless another clone's are there."""
        hooks = attached(model.model)
        if hooks.holder == id(model):
            hooks.remove()


def attached(network: Any) -> Hooks:
    """Return the hooks of a model, which all its clones share; put on its layers now if need be.

    A loader calls this, so that the hooks are there before anything is compiled.
    """
    found = getattr(network, INJECTION, None)
    if found is None:
        found = Hooks(linear_layers(network))
        setattr(network, INJECTION, found)
    return found


class Hooks:
    """What is attached to the layers of one model.

    The hooks stay on the layers: torch.compile does not look again for one that comes later.

    Args:
        layers: those that may get a LoRA, by their names.

    Attributes:
        holder: which clone attached it; None if nothing is.
    """

    def __init__(self, layers: Mapping[str, Any]) -> None:
        self.holder: int | None = None
        self._hooks = {name: Beside(layer.out_features) for name, layer in layers.items()}
        for name, layer in layers.items():
            layer.register_forward_hook(self._hooks[name])

    def add(
        self, name: str, parts: Sequence[Side], device: torch.device, dtype: torch.dtype
    ) -> None:
        """Attach LoRAs to a layer."""
        hook = self._hooks[name]
        pairs = [part for part in parts if isinstance(part, Factors)]
        hook.factors = stack(pairs, hook.height).to(device, dtype) if pairs else None
        hook.krons = tuple(p.to(device, dtype) for p in parts if isinstance(p, Kron))

    def remove(self) -> None:
        """Detach all; say so if a layer ran without its own, which must not happen."""
        used = {name: hook for name, hook in self._hooks.items() if hook.holds}
        missed = [name for name, hook in used.items() if not hook.ran]
        if 0 < len(missed) < len(used):
            log.error(
                "The LoRA did not reach %s and %d more layers: this ComfyUI computes them without "
                "calling them. Turn go_fast off, and report it.",
                *(missed[0], len(missed) - 1),
            )
        for hook in used.values():
            hook.factors, hook.krons, hook.ran = None, (), False
        self.holder = None


class Beside:
    """The hook of one layer.

    Args:
        height: of the layer's weight.

    Attributes:
        factors: pairs that are attached; None for none.
        krons: Kronecker products that are.
        ran: whether the layer was called with it.
    """

    def __init__(self, height: int) -> None:
        self.height = height
        self.factors: Factors | None = None
        self.krons: tuple[Kron, ...] = ()
        self.ran = False

    @property
    def holds(self) -> bool:
        """Whether anything is attached."""
        return self.factors is not None or bool(self.krons)

    def __call__(self, _layer: Any, given: tuple[Tensor, ...], made: Tensor) -> Tensor:
        """Return the layer's result with the LoRA's."""
        if not self.holds:
            return made
        self.ran = True
        if self.factors is not None:
            made = add_change(made, given[0], self.factors)
        for kron in self.krons:
            made = add_kron(made, given[0], kron)
        return made
