"""The short form of bench/fuzz.py: kept inputs, and random changes of sound ones."""

from __future__ import annotations

import random

import pytest

from fuzz.targets import TARGETS, seeds

CHANGES = 400

FLOAT_OFFSET = bytes.fromhex(
    "49492a0008000000 0a00"
    "000104000100000005000000 010104000100000003000000 020103000100000020000000"
    "030103000100000001000000 060103000100000001000000 11010c000100000086000000"
    "160104000100000003000000 17010400010000003c000000 1c0103000100000001000000"
    "530103000100000003000000"
) + bytes(60)
"""A TIFF whose pixels begin at a float; Pillow raises a TypeError."""

FOUND: list[tuple[str, bytes]] = [
    ("data_uri", b"data:;base64,AA\xf9E="),  # half of a surrogate pair
    ("source", b"data" + b"." * 60 + b":c"),  # took hours
    ("picture", FLOAT_OFFSET),
]
"""Inputs that once raised something else than an error of the pack."""

WORDS = (b"\x00", b"\xff" * 4, b"\x80", b"{", b'"', b"[" * 50, b"%", b"/", b":", b"@", b"#", b"\n")


def changed(data: bytes, draw: random.Random) -> bytes:
    """A few random edits, as fuzzers make them."""
    made = bytearray(data)
    for _ in range(draw.randint(1, 5)):
        at = draw.randrange(len(made) + 1)
        way = draw.randrange(5)
        if way == 0:
            made[at : at + 1] = draw.randbytes(1)
        elif way == 1:
            del made[at : at + draw.randint(1, 8)]
        elif way == 2:
            made[at:at] = draw.choice(WORDS)
        elif way == 3:
            made[at:at] = made[draw.randrange(len(made) + 1) :][:16]
        else:
            del made[at:]
    return bytes(made)


@pytest.mark.filterwarnings("ignore")  # Pillow's, about damaged pictures
@pytest.mark.parametrize("name", TARGETS)
def test_sound_inputs_and_changes_of_them(name: str) -> None:
    draw = random.Random(name)
    sound = seeds(name)
    for data in sound:
        TARGETS[name](data)
    for _ in range(CHANGES):
        data = changed(draw.choice(sound), draw)
        try:
            TARGETS[name](data)
        except Exception as error:
            raise AssertionError(f"{name}: {data!r}") from error


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "data"), FOUND)
def test_what_was_found(name: str, data: bytes) -> None:
    TARGETS[name](data)
