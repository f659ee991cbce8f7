"""The alphas that PEFT and diffusers keep beside the tensors: in the head, or in a file of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from ...errors import shorten
from .parts import Module
from .patterns import Patterns

METADATA_KEY: Final = "lora_adapter_metadata"
"""Where diffusers writes the settings of its adapters, in the head of the file."""

CONFIG: Final = "adapter_config.json"
"""What PEFT calls the file of its settings, beside `adapter_model.safetensors`."""

_ALPHA: Final = "lora_alpha"

_WRAPPED: Final = "base_model.model."
"""How names begin that PEFT wrote itself."""

Table = Mapping[str, Any]


@dataclass
class Alphas:
    """What settings say.

    Attributes:
        values: alphas by the names of modules; none for those that have one of their own.
        notes: what the user should know.
    """

    values: dict[str, float] = field(default_factory=dict[str, float])
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
        name = module.names.get("down", "")
        stem, found, _ = name.partition(".lora_A")
        if not found or "alpha" in module.parts:
            continue
        stem = stem.removeprefix(_WRAPPED)
        part = next((p for p in (_first(stem), _first(module.name)) if p in parts), None)
        settings = own if part is None else parts[part]
        if settings is None:
            lacking += [name] if name.startswith(_WRAPPED) else []
            continue
        inner = stem if part is None else stem.removeprefix(f"{part}.")
        alpha = settings.alpha(inner, len(module.parts["down"]))
        if alpha is not None:
            made.values[module.name] = alpha
    if lacking and config is None:
        made.notes.append(
            f"its names are PEFT's, which keeps alpha in {CONFIG}; that is not beside the file, "
            "so alpha is taken to be the rank"
        )
    made.notes += [note for one in (*parts.values(), own) if one for note in one.notes]
    return made


class _Settings:
    """What one adapter was made with.

    Args:
        table: where it stands.
        prefix: of its keys.
    """

    def __init__(self, table: Table, prefix: str) -> None:
        pattern: Any = table.get(f"{prefix}alpha_pattern")
        self.by_pattern = cast("dict[str, Any]", pattern) if isinstance(pattern, dict) else {}
        self.patterns = Patterns(self.by_pattern)
        self.usual = table.get(f"{prefix}{_ALPHA}")
        self.root = table.get(f"{prefix}use_rslora") is True
        self.notes: list[str] = []

    def alpha(self, name: str, rank: int) -> float | None:
        """Return the number that, divided by the rank, a module's change is multiplied by."""
        key = self.patterns.first(name)
        alpha = self.usual if key is None else self.by_pattern[key]
        if (
            not isinstance(alpha, int | float)
            or isinstance(alpha, bool)
            or not math.isfinite(alpha)
        ):
            note = f"lora_alpha is {shorten(alpha)}, so alpha is taken to be the rank"
            self.notes += [note] if note not in self.notes else []
            return None
        return alpha * math.sqrt(rank) if self.root else float(alpha)


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
