"""What a LoRA file's modules change of a model, each with the tensors that the change is made of.

Names and sizes alone: the model is a table of weights, and who applies a file makes the patches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch
from torch import Tensor

from ...errors import LoraError
from .fit import Fit
from .parts import BIASES, KINDS, Kind, Module, kind_of, length, slots_of
from .sizes import bias_misfit, misfit
from .whole import broken

Shapes = Mapping[str, tuple[int, ...]]
Make = Callable[[Kind, Mapping[str, Tensor]], Any]
"""Makes the patch of a change that is written in a way, of its tensors by their slots."""

_DIFFERENCE: Final = next(kind for kind in KINDS if kind.name == "diff")


@dataclass(frozen=True)
class Place:
    """What of a model a module of a file means.

    Attributes:
        key: the core's, a name or (name, (dimension, start, length) or None, function).
    """

    key: Any

    @property
    def weight(self) -> str:
        """The name of the weight."""
        return self.key if isinstance(self.key, str) else self.key[0]

    @property
    def layer(self) -> str | None:
        """The name of the layer whose weight it is; None if it is no layer's weight."""
        layer, _, kind = self.weight.rpartition(".")
        return layer if kind == "weight" else None

    @property
    def offset(self) -> tuple[int, int, int] | None:
        """The (dimension, start, length) of what is meant; None for all of it."""
        return None if isinstance(self.key, str) else self.key[1]

    @property
    def reorders(self) -> bool:
        """Whether rows are brought into another order before they are added."""
        return not isinstance(self.key, str) and len(self.key) > 2 and self.key[2] is not None

    @property
    def bias(self) -> Place | None:
        """The bias beside it, the same rows of it; None if it is no layer's weight."""
        if self.layer is None:
            return None
        name = f"{self.layer}.bias"
        return Place(name if isinstance(self.key, str) else (name, *self.key[1:]))

    def size(self, shapes: Shapes) -> tuple[int, ...] | None:
        """Return the shape of the rows that are meant; None if the model has no such weight."""
        shape = shapes.get(self.weight)
        return shape if shape is None or self.offset is None else (self.offset[2], *shape[1:])


@dataclass
class Changes:
    """What a file changes of a model.

    Attributes:
        patches: by the core's keys.
        names: the file's tensors that a patch is made of.
        misfits: weights of another shape with what is wrong, and the file's tensors.
    """

    patches: dict[Any, Any] = field(default_factory=dict[Any, Any])
    names: dict[Any, set[str]] = field(default_factory=dict[Any, set[str]])
    misfits: dict[str, set[str]] = field(default_factory=dict[str, set[str]])

    def add(self, place: Place, patch: Any, names: set[str]) -> str | None:
        """Add a patch; return what is wrong if these rows have one, of which the core drops one."""
        if place.key in self.patches:
            first = min(self.names[place.key], default="")
            return f"it changes {place.weight} twice, with {first} and {min(names, default='')}"
        self.patches[place.key] = patch
        self.names[place.key] = names
        return None

    def result(self, fit: Fit, taken: Iterable[Any]) -> Fit:
        """Return how the file fitted, given the keys of the patches that a model took."""
        keys = list(taken)
        return replace(
            fit,
            used=frozenset[str]().union(*(self.names[key] for key in keys)),
            misfitting=frozenset[str]().union(*self.misfits.values()),
            patched=len({Place(key).weight for key in keys}),
            misfits=tuple(self.misfits),
        )


def changes_to(
    file: str, modules: Iterable[Module], key_map: Mapping[str, Any], shapes: Shapes, make: Make
) -> Changes:
    """Return what a file changes of a model.

    Args:
        file: its name, for messages.
        modules: what it holds.
        key_map: the core's keys by the names of modules.
        shapes: of the model's weights by their names.
        make: makes the patches.

    Raises:
        LoraError: a module that the model has is not whole, or is there twice.
    """
    changes = Changes()
    for module in modules:
        if module.name not in key_map:
            continue
        place = Place(key_map[module.name])
        problem = (
            broken(module)
            or _add_weight(changes, module, place, shapes, make)
            or _add_bias(changes, module, place, shapes, make)
        )
        if problem is not None:
            raise LoraError(f"{file} cannot be used: {problem}. Ask its author for a whole file")
    return changes


def _add_weight(
    changes: Changes, module: Module, place: Place, shapes: Shapes, make: Make
) -> str | None:
    kind = kind_of(module)
    slots = None if kind is None else slots_of(module, kind)
    if kind is None or slots is None:
        return None
    parts = {slot: module.parts[slot] for slot in slots}
    size = place.size(shapes)
    problem = None if size is None else misfit(kind, parts, size)
    if problem is None:
        return changes.add(place, make(kind, parts), module.named(slots))
    changes.misfits[_shown(place, problem)] = module.named(slots)
    return None


def _add_bias(
    changes: Changes, module: Module, place: Place, shapes: Shapes, make: Make
) -> str | None:
    bias = place.bias
    size = None if bias is None else bias.size(shapes)
    slot = next((slot for slot in BIASES if slot in module.parts), None)
    if bias is None or size is None or slot is None:
        return None
    change = module.parts[slot]
    if slot == "up_bias":
        if "down" not in module.parts:
            return None
        change = change.to(torch.float32) * _scale(module)
    problem = bias_misfit(change, size)
    if problem is None:
        return changes.add(bias, make(_DIFFERENCE, {"diff": change}), module.named([slot]))
    changes.misfits[_shown(bias, problem)] = module.named([slot])
    return None


def _scale(module: Module) -> float:
    """Return what a pair of factors, and the bias behind it, is multiplied by: alpha / rank."""
    alpha = module.parts.get("alpha")
    return 1.0 if alpha is None else float(alpha) / length(module.parts["down"])


def _shown(place: Place, problem: str) -> str:
    return f"{place.weight.removeprefix('diffusion_model.')} ({problem})"
