"""The families that LoRA files come in: how their names are built. Names only, no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

EXPECTED: Final = (
    "diffusers (transformer.transformer_blocks...), kohya (lora_unet_double_blocks_...), "
    "BFL (double_blocks... with or without diffusion_model.), "
    "XLabs (double_blocks.N.processor...), OneTrainer (lora_transformer_...), "
    "and LyCORIS (lycoris_...)"
)
"""The families that FLUX LoRAs come in, for messages."""


@dataclass(frozen=True)
class Family:
    """How a file names its modules.

    Attributes:
        name: of the family, for messages.
        flux: whether FLUX LoRAs come in it; for others name is the model they are made for.
    """

    name: str
    flux: bool = True


_FAMILIES: Final = (
    # More particular ones first: a file belongs to the first that one of its names fits.
    (r"\.processor\.(?:qkv|proj)_lora[12]?\.", Family("XLabs")),
    (r"^lora_unet_(?:double|single)_blocks_", Family("kohya")),
    (r"^lora_unet_(?:single_)?transformer_blocks_", Family("kohya, names of diffusers")),
    (r"^lora_transformer_(?:single_)?transformer_blocks_", Family("OneTrainer")),
    (r"^lycoris_(?:single_)?transformer_blocks_", Family("LyCORIS")),
    (r"^transformer\.(?:single_)?transformer_blocks\.", Family("diffusers")),
    (r"^(?:.*\.)?base_model\.model\.", Family("PEFT")),
    (r"^diffusion_model\.(?:double|single)_blocks\.", Family("BFL, with diffusion_model.")),
    (r"(?:^|\.)(?:double|single)_blocks\.", Family("BFL")),
    (
        r"^lora_te2_text_model_|^lora_unet_(?:input|output|middle)_blocks?_",
        Family("SDXL", flux=False),
    ),
    (
        r"^(?:unet\.|lora_unet_)(?:down|up)_blocks.*transformer_blocks[._][2-9]",
        Family("SDXL", flux=False),
    ),
    (
        r"^(?:unet\.|lora_unet_)(?:down|up|mid)_block",
        Family("Stable Diffusion 1.x or 2.x", flux=False),
    ),
    (r"joint_transformer_blocks", Family("AuraFlow", flux=False)),
    (r"joint_blocks", Family("Stable Diffusion 3", flux=False)),
    (r"(?:^|[._])blocks[._]\d+[._](?:cross|self)_attn", Family("Wan", flux=False)),
    (r"^(?:single_)?transformer_blocks\.", Family("diffusers, without transformer.")),
    (
        r"^(?:transformer|diffusion_model)\.|^lora_(?:unet|transformer)_|^lycoris_",
        Family("other modules"),
    ),
    (r"^lora_te|^text_(?:encoder|model)", Family("text encoder")),
)
_COMPILED: Final = tuple((re.compile(pattern), family) for pattern, family in _FAMILIES)
UNKNOWN: Final = Family("unknown", flux=False)


def family_of(names: Iterable[str]) -> Family:
    """Return the family that a file's names belong to."""
    known = list(names)
    for pattern, family in _COMPILED:
        if any(pattern.search(name) for name in known):
            return family
    return UNKNOWN
