"""LyCORIS' DyLoRA, whose files look like any LoRA's and mean something else by alpha.

It trains a LoRA of many ranks at once, block by block. Its forward pass divides alpha by the number
of blocks that run (`lycoris/modules/dylora.py`), where a LoRA's is divided by the rank. Only what
kohya's scripts write into the head tells the two apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from .parts import Module

_ARGUMENTS: Final = "ss_network_args"
_USUAL: Final = 4
"""Ranks in a block where the training named no number, as in `lycoris/kohya.py`."""


def block_of(metadata: Mapping[str, str]) -> int | None:
    """Return how many ranks a block of a DyLoRA has; None if the file is none.

    Args:
        metadata: of the file's head.
    """
    try:
        found = json.loads(metadata.get(_ARGUMENTS, "{}"))
    except (ValueError, RecursionError):
        return None
    arguments = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    if str(arguments.get("algo", "")).lower() != "dylora":
        return None
    block = str(arguments.get("block_size", ""))
    return int(block) if block.isdecimal() and 0 < int(block) <= 2**16 else _USUAL


def multiply_alphas(modules: Iterable[Module], block: int) -> None:
    """Make alphas what they are for a LoRA: alpha / (rank / block) is alpha * block / rank."""
    for module in modules:
        if module.parts.keys() >= {"up", "down", "alpha"}:
            module.parts["alpha"] = module.parts["alpha"].double() * block
