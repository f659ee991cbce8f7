"""The record of what ran, put together from what each node noted."""

from __future__ import annotations

from flux_hotswap.prediction.record import VERSION, assemble


def test_lists_follow_each_other_and_the_last_word_counts() -> None:
    notes = [
        {"seed": 1, "loras": ["a"], "warnings": ["x"]},
        {"engine": "int8", "loras": ["b", "c"]},
        {"seed": 2, "width": 5},
    ]
    assert assemble(notes, 64, 32, 4) == {
        "seed": 2,
        "engine": "int8",
        "loras": ["a", "b", "c"],
        "warnings": ["x"],
        "width": 64,
        "height": 32,
        "num_outputs": 4,
        "version": VERSION,
    }
