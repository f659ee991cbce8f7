"""The record of a picture: what was done to make it, put together from what each node noted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

VERSION: Final = "0.1.0"
"""Of the pack, as in pyproject.toml."""

ADDED: Final = frozenset({"loras", "warnings"})
"""Keys whose lists follow each other; of every other key the last node has the last word."""


def assemble(
    notes: Iterable[Mapping[str, Any]], width: int, height: int, num_outputs: int
) -> dict[str, Any]:
    """Return the record of a batch of pictures.

    Args:
        notes: of the nodes before the pictures, those that ran first in front.
        width: of the pictures that came out, in pixels.
        height: of them.
        num_outputs: how many came out.
    """
    record: dict[str, Any] = {}
    for note in notes:
        for key, value in note.items():
            record[key] = [*record.get(key, []), *value] if key in ADDED else value
    size = {"width": width, "height": height, "num_outputs": num_outputs}
    return record | size | {"version": VERSION}
