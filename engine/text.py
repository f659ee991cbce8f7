"""Prompts as FLUX's text encoders in ComfyUI take them."""

from __future__ import annotations

from typing import Any

from ..errors import InputError
from ..ops.tokens import CLIP_LENGTH, padded_tokens


def flux_tokens(clip: Any, text: str, t5_length: int) -> dict[str, list[list[tuple[int, float]]]]:
    """Return text as tokens for ComfyUI's FLUX text encoders, each of weight 1.

    Raises:
        InputError: clip holds other text encoders than FLUX.1's.
    """
    tokenizer = clip.tokenizer
    if not hasattr(tokenizer, "t5xxl") or hasattr(tokenizer, "clip_g"):
        raise InputError(
            "clip: these are not FLUX's text encoders; "
            "load clip_l and t5xxl with DualCLIPLoader, type flux"
        )
    ids = {
        "l": padded_tokens(tokenizer.clip_l.tokenizer, text, CLIP_LENGTH),
        "t5xxl": padded_tokens(tokenizer.t5xxl.tokenizer, text, t5_length),
    }
    return {name: [[(token, 1.0) for token in tokens]] for name, tokens in ids.items()}
