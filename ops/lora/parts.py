"""A LoRA file's tensors, module by module: what each is for, and whether a module is whole.

Every tensor belongs to one slot of one module, or to none. What is applied is built from slots
alone, so that what counts as used is what went into a change of a weight or bias.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from torch import Tensor

_LOKR = ("w1", "w2", "w1_a", "w1_b", "w2_a", "w2_b", "t2")
_HADA = ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")
_SPELLINGS: Final = {
    "up": r"(?:\.lora_up|\.lora_B|_lora\.up|\.lora\.up|\.lora_linear_layer\.up)\.weight|\.lora_B",
    "down": (
        r"(?:\.lora_down|\.lora_A|_lora\.down|\.lora\.down|\.lora_linear_layer\.down)\.weight"
        r"|\.lora_A"
    ),
    "up_bias": r"\.(?:lora_B|lora_up)\.bias",
    "mid": r"\.lora_mid\.weight",
    "alpha": r"\.alpha",
    "dora_scale": r"\.dora_scale",
    # PEFT's with or without the adapter's name, and ai-toolkit's.
    "magnitude": r"\.lora_magnitude_vector(?:\.[^.]+)?(?:\.weight)?|\.magnitude",
    **{name: rf"\.{name}" for name in ("diff", "diff_b", "set_weight", "w_norm", "b_norm")},
    **{f"lokr_{name}": rf"\.lokr_{name}" for name in _LOKR},
    **{f"hada_{name}": rf"\.hada_{name}" for name in _HADA},
    **{name: rf"\.{name}\.weight" for name in ("a1", "a2", "b1", "b2")},
    **{name: rf"\.{name}" for name in ("oft_blocks", "rescale")},
}
_SLOT: Final = re.compile(
    r"(?P<module>.+?)(?:" + "|".join(f"(?P<{k}>{v})" for k, v in _SPELLINGS.items()) + ")"
)


@dataclass(frozen=True)
class Module:
    """What a file holds for one module.

    Attributes:
        name: as the core knows it.
        parts: tensors by their slots.
        names: the file's own names by slots; none for what the file's head says.
    """

    name: str
    parts: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    names: dict[str, str] = field(default_factory=dict[str, str])

    def label(self, slot: str) -> str:
        """Return what the file calls a part, for messages."""
        return self.names.get(slot, f"{self.name}.{slot}")

    def named(self, slots: Iterable[str]) -> set[str]:
        """Return the file's names of some slots."""
        return {self.names[slot] for slot in slots if slot in self.names}


@dataclass(frozen=True)
class Kind:
    """A way to write the change of a weight.

    Attributes:
        name: as the core calls it.
        needs: rows of sets of slots; of each row one set has to be there, the first counts.
        allows: slots that may be there too.
    """

    name: str
    needs: tuple[tuple[tuple[str, ...], ...], ...]
    allows: tuple[str, ...] = ()

    @property
    def marks(self) -> set[str]:
        """The slots of which one says that a module is of this kind."""
        return {slot for row in self.needs for slots in row for slot in slots}


def _kind(name: str, needs: str, allows: str = "") -> Kind:
    """Make a kind: `a b, c|d e` needs a, b and c, or a, b, d and e."""
    rows = [tuple(tuple(one.split()) for one in row.split("|")) for row in needs.split(",")]
    return Kind(name, tuple(rows), tuple(allows.split()))


KINDS: Final = (
    _kind("lora", "up down", "mid alpha dora_scale magnitude up_bias"),
    _kind("loha", "hada_w1_a hada_w1_b hada_w2_a hada_w2_b", "hada_t1 hada_t2 alpha dora_scale"),
    _kind(
        "lokr",
        "lokr_w1|lokr_w1_a lokr_w1_b, lokr_w2|lokr_w2_a lokr_w2_b lokr_t2|lokr_w2_a lokr_w2_b",
        "alpha dora_scale",
    ),
    _kind("glora", "a1 a2 b1 b2", "alpha dora_scale"),
    _kind("oft", "oft_blocks", "rescale alpha dora_scale"),
    _kind("diff", "diff"),
    _kind("diff", "w_norm"),
    _kind("set", "set_weight"),
)
"""Of the weight. Biases are changed by `BIASES`."""

RANKED: Final = ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b")
"""Slots that are as long as a change's rank; the first that is there counts."""

BIASES: Final = ("diff_b", "b_norm", "up_bias")
"""Slots with a change of the bias."""

MAGNITUDES: Final = ("magnitude", "dora_scale")
"""Slots with DoRA's magnitudes; where there are both the first counts."""


def split(state: Mapping[str, Tensor], originals: Mapping[str, str]) -> dict[str, Module]:
    """Return a file's modules by their names; what belongs to none is left out.

    Args:
        state: tensors under names that the core knows.
        originals: the file's own names by those.
    """
    made: dict[str, Module] = {}
    for name, tensor in state.items():
        found = _SLOT.fullmatch(name)
        slot = found.lastgroup if found else None
        if found is None or slot is None or slot == "module":
            continue
        module = made.setdefault(found["module"], Module(found["module"]))
        module.parts[slot] = tensor
        module.names[slot] = originals.get(name, name)
    return made


def kind_of(module: Module) -> Kind | None:
    """Return how a module's change is written; None if it is of the bias alone, or of nothing."""
    return next((kind for kind in KINDS if kind.marks & module.parts.keys()), None)


def slots_of(module: Module, kind: Kind) -> set[str] | None:
    """Return the slots that make up the change of a module's weight; None if some are missing."""
    found: set[str] = set(kind.allows) & module.parts.keys() - set(BIASES)
    for row in kind.needs:
        slots = next((slots for slots in row if module.parts.keys() >= set(slots)), None)
        if slots is None:
            return None
        found |= set(slots)
    return found - {"dora_scale"} if "magnitude" in found else found


def length(factor: Tensor) -> int:
    """Return how many rows a factor has; a lone number, which no trainer writes, is one."""
    return len(factor) if factor.ndim else 1
