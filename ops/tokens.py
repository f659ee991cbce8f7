"""Prompt tokens as the hosted model makes them: padded and cut to one length, plain text."""

from __future__ import annotations

from typing import Any, Final, Protocol

CLIP_LENGTH: Final = 77


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    def __call__(self, text: str, *, padding: str, truncation: bool, max_length: int) -> Any:
        """Return a mapping whose "input_ids" are the tokens."""
        ...


def padded_tokens(tokenizer: Tokenizer, text: str, length: int) -> list[int]:
    """Return exactly length token ids of text.

    A longer text is cut so that its end token stays, a shorter one is filled with the tokenizer's
    padding token. Parentheses, weights and embedding names mean nothing here: they are text.
    """
    encoded = tokenizer(text, padding="max_length", truncation=True, max_length=length)
    return list(encoded["input_ids"])
