"""PEFT's expressions: the same names as with Python's own engine, and never for long."""

from __future__ import annotations

import random
import re
import time

import pytest

from flux_hotswap.errors import LoraError
from flux_hotswap.ops.lora.patterns import MAX_LENGTH, Patterns

NAMES = [
    "transformer_blocks.0.attn.to_q",
    "transformer_blocks.10.attn.to_out.0",
    "transformer_blocks.1.ff.net.0.proj",
    "single_transformer_blocks.7.proj_out",
    "single_transformer_blocks.37.attn.to_k",
    "proj_out",
    "x_embedder",
    "norm_out.linear",
    "a",
    "",
]
KEYS = [
    "proj_out",
    "to_q",
    "attn.to_q",
    "out",
    "transformer_blocks.0.attn.to_q",
    "net.0.proj",
    "to-q",
    r"attn\.to_q",
    r"single_transformer_blocks\.\d+\.proj_out",
    r"^proj_out",
    r"^transformer_blocks\.\d+\.attn\.to_[qk]",
    r"^attn\.to_q",
    r"proj_out$",
    r".*attn.*",
    r".*\.attn\.to_(q|k|v)",
    r"to_(?:q|out\.0)",
    r"(?P<which>to_[a-z])",
    r"transformer_blocks\.([0-9]|1[0-8])\.attn\.to_out\.0",
    r"(transformer_blocks|single_transformer_blocks)\.[0-9]{1,2}\..+",
    r"blocks\.\d{2}\.attn.to_k",
    r"[^.]+",
    r"[\w]+_[]a-z]*",
    r"(a|b)*",
    r"(a*)*b?",
    r"a{0}proj_out",
    r"a{,1}",
    r".*?proj_out??",
    r"x_{embedder",
    r"pro(j_|x|)out",
    r"|proj_out",
    r"$|a",
    r"(^)a",
]


def python_says(key: str, name: str) -> bool:
    return re.match(rf"(.*\.)?({key})$", name) is not None


@pytest.mark.parametrize("key", KEYS)
def test_the_same_names_fit_as_in_peft(key: str) -> None:
    pattern = Patterns([key])
    assert [name for name in NAMES if pattern.first(name) is not None] == [
        name for name in NAMES if python_says(key, name)
    ]


def drawn(source: random.Random, depth: int = 3) -> str:
    """An expression of a few signs."""
    made = ""
    for _ in range(source.randint(1, 3)):
        kind = source.randrange(5 if depth else 3)
        atom = [source.choice("ab"), ".", source.choice(["[ab]", "[^a]", r"\.", r"\w"])]
        atom += [f"({drawn(source, depth - 1) if depth else 'a'})"]
        atom += [f"({'|'.join(drawn(source, depth - 1) for _ in range(2)) if depth else 'b'})"]
        made += atom[kind] + source.choice(["", "", "", "?", "*", "+", "{2}", "{1,2}", "{0,3}"])
    return made


@pytest.mark.parametrize("seed", range(300))
def test_drawn_expressions_fit_the_same_names(seed: int) -> None:
    source = random.Random(seed)
    key = drawn(source)
    names = ["".join(source.choices("ab.", k=source.randrange(7))) for _ in range(30)]
    pattern = Patterns([key])
    for name in names:
        assert (pattern.first(name) is not None) == python_says(key, name), (key, name)


def test_the_first_that_fits_counts() -> None:
    patterns = Patterns(["to_k", r".*\.to_q", "attn.to_q"])
    assert patterns.first(NAMES[0]) == r".*\.to_q"
    assert patterns.first("x_embedder") is None


SLOW = [r"(a+)+b", r"(a|a)*b", r"(a*)*b", r"(.*)(.*)(.*)(.*)(.*)b", r"(a?){1000}a{1000}b"]


@pytest.mark.parametrize("key", SLOW)
def test_slow_expressions_end(key: str) -> None:
    """With Python's own engine the first takes longer than anybody lives."""
    before = time.monotonic()
    assert Patterns([key]).first("a" * 200) is None
    assert time.monotonic() - before < 10


def test_the_steps_are_counted() -> None:
    key = "(" * 15 + "a*" + ")*" * 15
    before = time.monotonic()
    patterns = Patterns([key + "b"] * 50)
    with pytest.raises(LoraError, match="takes too long"):
        for _ in range(1000):
            patterns.first("a" * 500)
    assert time.monotonic() - before < 60


@pytest.mark.parametrize(
    "key",
    [
        "(a",
        "a)",
        "[a",
        "*a",
        "a**",
        "a*+",
        "(?=a)",
        "(?i)a",
        r"(a)\1",
        r"\bq",
        "a\\",
        "a{2000}",
        "a{3,2}",
        "(" * 40 + ")" * 40,
        "(a)" * MAX_LENGTH,
    ],
)
def test_what_is_not_read_is_an_error(key: str) -> None:
    with pytest.raises(LoraError, match="none that can be read"):
        Patterns([key])
