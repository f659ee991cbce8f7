"""LoRAs on a model whose weights are quantised: beside them, which stay as they are.

A forward hook on each layer adds what the LoRA makes. The LoRA is there while the clone that
carries it is loaded, and goes without a trace.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..ops.lora.beside import Dense, Factors, Kron, Lengths, bytes_of, rows_of, stack
from ..ops.lora.changes import Place
from .fetching import progress_bar
from .models import interruptible
from .room import make_room, taller
from .rows import Rows
from .sides import Side, side_of, sides_with
from .unpatched import unpatched

if TYPE_CHECKING:
    import torch
    from comfy.model_patcher import ModelPatcher
    from torch import Tensor

INJECTION: Final = "flux_hotswap_loras"

Sides = Mapping[str, tuple[Side, ...]]
"""LoRAs by the name of the layer that they belong to."""

_Change = tuple[Any, float, Any]
"""A patch of the core's, what it is multiplied by, and its (dimension, start, length) or None."""

log = logging.getLogger(__name__)


def add_beside(
    model: ModelPatcher, patches: Mapping[Any, Any], strength_of: Callable[[str], float]
) -> tuple[set[Any], dict[Any, Any]]:
    """Put what changes weights that are quantised beside them, if there are any.

    Args:
        model: a clone that may be changed.
        patches: by the core's keys, a name or (name, (dimension, start, length)).
        strength_of: what the change of a weight is multiplied by, by its name.

    Returns:
        The keys that were added, and the patches that are left for the core.

    Raises:
        InterruptProcessingException: the user pressed cancel.
    """
    layers = quantised_layers(model)
    added: defaultdict[str, list[Side]] = defaultdict(list)
    slow: list[tuple[str, _Change]] = []
    done: set[Any] = set()
    for key, patch in patches.items():
        place = Place(key)
        if place.layer is None or place.layer not in layers or place.reorders:
            continue
        change = patch, strength_of(place.weight), place.offset
        side = side_of(*change)
        if side is None:
            slow.append((place.layer, change))
        else:
            added[place.layer].append(side)
        done.add(key)
    for name, sides in _with_weights(model, layers, slow):
        added[name] += sides
    if added:
        carry(model, {layer: tuple(sides) for layer, sides in added.items()})
    return done, {key: patch for key, patch in patches.items() if key not in done}


def _with_weights(
    model: ModelPatcher, layers: Mapping[str, Any], changes: Sequence[tuple[str, _Change]]
) -> Iterator[tuple[str, list[Side]]]:
    """Yield the sides of changes that the weight must be read for, each with its layer's name."""
    tell = interruptible(progress_bar())
    if changes:
        make_room(model.load_device)
    for count, (name, change) in enumerate(changes):
        tell(count, len(changes))
        rows = Rows.of(layers[name], unpatched(model, f"{name}.weight"))
        yield name, sides_with(*change, rows, model.load_device)


def quantised_layers(model: ModelPatcher) -> dict[str, Any]:
    """Return the linear layers of a model whose weights were loaded quantised, by their names."""
    import torch

    whole = (torch.float32, torch.bfloat16, torch.float16)
    layers = linear_layers(model.model)
    dtypes = {name: stored_dtype(unpatched(model, f"{name}.weight")) for name in layers}
    return {name: layer for name, layer in layers.items() if dtypes[name] not in whole}


def linear_layers(model: Any) -> dict[str, Any]:
    """Return the linear layers of a model, by their names."""
    return {name: layer for name, layer in model.named_modules() if hasattr(layer, "in_features")}


def dtype_of(model: ModelPatcher) -> torch.dtype:
    """Return what a model computes in."""
    return model.model.manual_cast_dtype or model.model.get_dtype()


def stored_dtype(weight: Tensor) -> torch.dtype:
    """Return the dtype that a weight is kept in; ComfyUI's quantised tensors claim another."""
    inner = getattr(weight, "_qdata", None)
    return weight.dtype if inner is None else inner.dtype


def shapes_of(model: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's weights, as its layers compute with them."""
    return {name: tuple(weight.shape) for name, weight in model.named_parameters()}


def carry(model: ModelPatcher, added: Sides) -> None:
    """Let a clone attach LoRAs while it is the one that runs, beside those that it has.

    They are kept as they are computed with: each run attaches them anew, which is a copy then.
    """
    from comfy.patcher_extension import PatcherInjection, WrappersMP

    before = model.get_attachment(INJECTION) or Carried({})
    where = model.offload_device, dtype_of(model)
    ready = {name: tuple(side.to(*where) for side in sides) for name, sides in added.items()}
    sides = before.plus(ready)
    model.set_attachments(INJECTION, sides)
    model.set_injections(INJECTION, [PatcherInjection(sides.attach, sides.detach)])
    model.remove_wrappers_with_key(WrappersMP.PREPARE_SAMPLING, INJECTION)
    model.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, INJECTION, sides.with_room)


class Carried:
    """The LoRAs of one clone; never changed.

    Attributes:
        sides: them; of a layer's pairs of factors one is made.
    """

    def __init__(self, sides: Sides) -> None:
        self.sides = sides

    def plus(self, more: Sides) -> Carried:
        """Return these and more."""
        made = dict(self.sides)
        for name, sides in more.items():
            made[name] = _as_one((*made.get(name, ()), *sides))
        return Carried(made)

    def attach(self, model: ModelPatcher) -> None:
        """Attach them to the layers; ComfyUI calls this when the clone is loaded."""
        hooks = attached(model.model)
        hooks.remove()
        where = model.load_device, dtype_of(model)
        try:
            moved = {
                name: [part.to(*where) for part in parts] for name, parts in self.sides.items()
            }
        except RuntimeError:  # there is no room for one
            model.detach()  # ComfyUI takes it for one that is not on the card then
            raise
        hooks.attach(id(model), moved)

    def with_room(
        self, load: Callable[..., Any], model: ModelPatcher, shape: Sequence[int], *more: Any,
        **named: Any,
    ) -> Any:  # fmt: skip
        """Let ComfyUI load the model with room for them, where they are not attached yet.

        Args:
            load: ComfyUI's, which this wraps.
            model: the clone.
            shape: of the latent, [B,C,H,W].
            more: arguments of ComfyUI's.
            named: further ones.
        """
        hooks = attached(model.model)
        missing = 0 if hooks.holder == id(model) else _size_of(self.sides) - hooks.size
        return load(model, taller(model.model, shape, missing), *more, **named)

    def detach(self, model: ModelPatcher) -> None:
        """Detach them, unless another clone's are there."""
        hooks = attached(model.model)
        if hooks.holder == id(model):
            hooks.remove()


def _as_one(sides: Sequence[Side]) -> tuple[Side, ...]:
    """Return a layer's pairs of factors as one, then all else: each pair would be a pass more."""
    pairs = [side for side in sides if isinstance(side, Factors)]
    others = [side for side in sides if not isinstance(side, Factors)]
    return (*([stack(pairs)] if len(pairs) > 1 else pairs), *others)


def _size_of(sides: Mapping[str, Sequence[Side]]) -> int:
    """Return how many bytes LoRAs take, by their layers."""
    return sum(bytes_of(part) for parts in sides.values() for part in parts)


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
        size: bytes that it takes on the card.
    """

    def __init__(self, layers: Mapping[str, Any]) -> None:
        self.holder: int | None = None
        self.size = 0
        self._hooks = {name: Beside() for name in layers}
        for name, layer in layers.items():
            layer.register_forward_hook(self._hooks[name])

    def attach(self, holder: int, sides: Mapping[str, Sequence[Side]]) -> None:
        """Attach LoRAs, where the layers compute, to layers that have none."""
        self.holder = holder
        self.size = _size_of(sides)
        for name, parts in sides.items():
            hook = self._hooks[name]
            hook.added = tuple(part for part in parts if not isinstance(part, Lengths))
            hook.lengths = tuple(part for part in parts if isinstance(part, Lengths))

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
            hook.added, hook.lengths, hook.ran = (), (), False
        self.holder, self.size = None, 0


class Beside:
    """The hook of one layer.

    Attributes:
        added: what is attached: all pairs as one, then all else that adds to what the layer made.
        lengths: what makes rows of it longer.
        ran: whether the layer was called with them.
    """

    def __init__(self) -> None:
        self.added: tuple[Factors | Kron | Dense, ...] = ()
        self.lengths: tuple[Lengths, ...] = ()
        self.ran = False

    @property
    def holds(self) -> bool:
        """Whether anything is attached."""
        return bool(self.added or self.lengths)

    def __call__(self, layer: Any, given: tuple[Tensor, ...], made: Tensor) -> Tensor:
        """Return the layer's result with the LoRA's, written where the layer's was."""
        if not self.holds:
            return made
        self.ran = True
        flat = made.reshape(-1, made.shape[-1])
        tokens = given[0].reshape(-1, given[0].shape[-1])
        # Before anything else is added: rows become longer by a share of what they made alone.
        longer = [part.of(without_bias(flat, layer)) for part in self.lengths]
        for part in self.added:
            part.add_to(flat, tokens)
        for part, change in zip(self.lengths, longer, strict=True):
            rows_of(flat, part.start, change.shape[1]).add_(change)
        return flat.reshape(made.shape)


def without_bias(made: Tensor, layer: Any) -> Tensor:
    """Return what a layer's weight alone made [M,N].

    The bias may have patches that ComfyUI leaves to each run where memory is low.
    """
    if layer.bias is None:
        return made
    bias = layer.bias.to(made, copy=True)
    low: Any = getattr(layer, "bias_lowvram_function", None)
    for change in ([low] if low else []) + list(getattr(layer, "bias_function", ())):
        bias = change(bias)
    return made - bias
