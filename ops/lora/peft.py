"""The alphas that PEFT and diffusers keep beside the tensors: in the head, or in a file of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from ...errors import shorten
from .parts import RANKED, Module, length
from .patterns import Patterns

METADATA_KEY: Final = "lora_adapter_metadata"
"""Where diffusers writes the settings of its adapters, in the head of the file."""

CONFIG: Final = "adapter_config.json"
"""What PEFT calls the file of its settings, beside `adapter_model.safetensors`."""

_ALPHA: Final = "lora_alpha"

_MOVING: Final = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin a training that change the model's own weights too."""
_MOVED: Final = (
    "it was trained from init_lora_weights {}, which changes the model's own weights too: those "
    "are not in the file, and what is applied is not what was trained"
)

_WRAPPED: Final = "base_model.model."
"""How names begin that PEFT wrote itself."""

Table = Mapping[str, Any]


@dataclass
class Alphas:
    """What settings say.

    Attributes:
        values: alphas by the names of modules; none for those that have one of their own.
        factors: what a LoKr without a rank is multiplied by, for which an alpha says nothing.
        notes: what the user should know.
    """

    values: dict[str, float] = field(default_factory=dict[str, float])
    factors: dict[str, float] = field(default_factory=dict[str, float])
    notes: list[str] = field(default_factory=list[str])


def alphas_of(modules: Iterable[Module], metadata: Mapping[str, str], config: str | None) -> Alphas:
    """Return the alphas that a file's tensors do not hold.

    Args:
        modules: the file's.
        metadata: of its head.
        config: the text of PEFT's settings beside it; None if there is none.

    Raises:
        LoraError: they hold an expression for names that cannot be followed.
    """
    made = Alphas()
    head = _table(metadata.get(METADATA_KEY), f"{METADATA_KEY} in its header", made)
    beside = _table(config, CONFIG, made)
    parts = {name: _Settings(head, f"{name}.") for name in _parts(head)}
    # A transformer that diffusers saves without a pipeline has its settings in the head bare.
    alone = head if _ALPHA in head else beside
    own = _Settings(alone, "") if alone else None
    lacking: list[str] = []
    for module in modules:
        name = _named(module)
        if name is None or "alpha" in module.parts:
            continue
        stem = name.removeprefix(_WRAPPED)
        part = next((p for p in (_first(stem), _first(module.name)) if p in parts), None)
        settings = own if part is None else parts[part]
        if settings is None:
            lacking += [name] if name.startswith(_WRAPPED) else []
            continue
        inner = stem if part is None else stem.removeprefix(f"{part}.")
        rank = next((length(module.parts[slot]) for slot in RANKED if slot in module.parts), None)
        alpha = settings.alpha(inner, rank or settings.rank(inner))
        if alpha is not None and rank is not None:
            made.values[module.name] = alpha
        elif alpha is not None:
            made.factors[module.name] = alpha / settings.rank(inner)
    if lacking and config is None:
        made.notes.append(
            f"its names are PEFT's, which keeps alpha in {CONFIG}; that is not beside the file, "
            "so alpha is taken to be the rank"
        )
    made.notes += [note for one in (*parts.values(), own) if one for note in one.notes]
    return made


def _named(module: Module) -> str | None:
    """Return the file's name of a module that PEFT or diffusers wrote; None of any other.

    Others have names with `lokr_w1` too, and always an alpha with them.
    """
    slot = next((slot for slot in (*RANKED, "lokr_w1") if slot in module.names), None)
    if slot is None:
        return None
    mark = ".lora_A" if slot == "down" else f".{slot}"
    stem, found, _ = module.names[slot].partition(mark)
    return stem if found and (slot == "down" or stem.startswith(_WRAPPED)) else None


class _Settings:
    """What one adapter was made with.

    Args:
        table: where it stands.
        prefix: of its keys.
    """

    def __init__(self, table: Table, prefix: str) -> None:
        self.alphas = _ByName(table.get(f"{prefix}alpha_pattern"))
        self.ranks = _ByName(table.get(f"{prefix}rank_pattern"))
        # LoHa and LoKr have no "lora" in it.
        self.usual = table.get(f"{prefix}{_ALPHA}", table.get(f"{prefix}alpha"))
        self.usual_rank = table.get(f"{prefix}r")
        self.root = table.get(f"{prefix}use_rslora") is True
        start = table.get(f"{prefix}init_lora_weights")
        moved = isinstance(start, str) and start.lower().startswith(_MOVING)
        self.notes = [_MOVED.format(shorten(start))] if moved else []

    def rank(self, name: str) -> int:
        """Return the rank that a module was to have; 1 if that is not said."""
        rank = self.ranks.of(name, self.usual_rank)
        return rank if isinstance(rank, int) and rank > 0 else 1

    def alpha(self, name: str, rank: int) -> float | None:
        """Return the number that, divided by the rank, a module's change is multiplied by."""
        alpha = self.alphas.of(name, self.usual)
        if (
            not isinstance(alpha, int | float)
            or isinstance(alpha, bool)
            or not math.isfinite(alpha)
        ):
            note = f"lora_alpha is {shorten(alpha)}, so alpha is taken to be the rank"
            self.notes += [note] if note not in self.notes else []
            return None
        return alpha * math.sqrt(rank) if self.root else float(alpha)


class _ByName:
    """What some modules have otherwise than all.

    Args:
        found: by expressions for their names, or anything else that is not followed.
    """

    def __init__(self, found: Any) -> None:
        self.values = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
        self.patterns = Patterns(self.values)

    def of(self, name: str, usual: Any) -> Any:
        """Return what a module has, of which the name is given."""
        key = self.patterns.first(name)
        return usual if key is None else self.values[key]


def _parts(head: Table) -> list[str]:
    """Return which of a pipeline's models a head has settings of."""
    return [key.removesuffix(f".{_ALPHA}") for key in head if key.endswith(f".{_ALPHA}")]


def _first(name: str) -> str:
    return name.partition(".")[0]


def _table(text: str | None, where: str, made: Alphas) -> Table:
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        return cast("dict[str, Any]", found)
    made.notes.append(f"{where} cannot be read, so alpha is taken to be the rank")
    return {}
