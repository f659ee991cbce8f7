"""How many tokens the text encoders make of a prompt, for the line in the graph editor."""

from __future__ import annotations

from functools import cache
from typing import Any


def count(text: str) -> dict[str, int]:
    """Return how many tokens T5 and CLIP make of a text, their ends included, before any is cut."""
    return {name: len(tokenizer(text, verbose=False)["input_ids"]) for name, tokenizer in _both()}


@cache
def _both() -> tuple[tuple[str, Any], ...]:
    """ComfyUI's tokenizers, which need no weights; a second of work when they are wanted first."""
    from comfy.text_encoders.flux import FluxTokenizer

    made: Any = FluxTokenizer()
    return ("t5", made.t5xxl.tokenizer), ("clip", made.clip_l.tokenizer)
