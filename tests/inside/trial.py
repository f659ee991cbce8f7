"""The trial that chooses how go_fast computes: its rule, what an administrator fixes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from runtime import inside

SIZE = 24 * 10**9


@pytest.fixture
def trial(comfy: Any) -> Any:
    return inside.pack("engine.trial")


RULES: dict[str, tuple[dict[str, float], bool, str, str]] = {
    "int8 is faster": (
        {"bf16": 3.4, "int8": 1.9},
        True,
        "int8",
        "trial: bf16 3.40 ms, int8 1.90",
    ),
    "int8 is faster, little memory": ({"bf16": 3.4, "int8": 1.9}, False, "int8", "trial:"),
    "int8 is slower": (
        {"bf16": 1.0, "int8": 1.2},
        True,
        "bf16",
        "nothing is faster than bf16",
    ),
    "as fast": ({"bf16": 1.0, "int8": 1.0}, True, "bf16", "nothing is faster"),
    "slower, little memory": ({"bf16": 1.0, "int8": 1.2}, False, "storage", "bf16 does not fit"),
    "no kernel": ({"bf16": 1.0}, True, "bf16", "this card has no fast int8 kernel"),
    "no kernel, little memory": (
        {"bf16": 1.0},
        False,
        "storage",
        "this card has no fast int8 kernel",
    ),
}


@pytest.mark.parametrize(("times", "fits", "engine", "words"), RULES.values(), ids=list(RULES))
def test_the_rule(trial: Any, times: dict[str, float], fits: bool, engine: str, words: str) -> None:
    choice = trial.decide(times, bf16_fits=fits)
    assert choice.engine == engine
    assert words in choice.reason


def test_a_cpu_stores_only(trial: Any) -> None:
    choice = trial.choose(SIZE, None)
    assert (choice.engine, choice.reason) == ("storage", "CPU has no int8 matmul")


@pytest.mark.parametrize("fixed", ["int8", "storage", "bf16", " INT8 "])
def test_an_administrator_fixes_it(trial: Any, fixed: str) -> None:
    choice = trial.choose(SIZE, fixed)
    assert (choice.engine, choice.reason) == (fixed.strip().lower(), f"{trial.VARIABLE} says so")


def test_nonsense_is_named(trial: Any) -> None:
    with pytest.raises(ValueError, match="FLUX_HOTSWAP_ENGINE is 'turbo': write one of auto, int8"):
        trial.choose(SIZE, "turbo")


def test_the_plain_back_end_is_no_fast_one(trial: Any) -> None:
    assert trial.any_matmul() is not None
    assert trial.fast_matmul(torch.device("cpu")) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("group", [1, 64, 256])
def test_the_matmul_is_the_weight_that_it_stands_for(
    trial: Any, dtype: torch.dtype, group: int
) -> None:
    int8 = inside.pack("ops.int8")
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randn(32, 512, generator=generator)
    weight = 0.02 * torch.randn(96, 512, generator=generator)
    bias = torch.randn(96, generator=generator)
    values, scale = int8.quantise(weight, group)
    made = trial.any_matmul()(tokens.to(dtype), values, scale, bias.to(dtype), group)
    wanted = torch.nn.functional.linear(tokens, weight, bias)
    assert made.dtype == dtype
    assert (made.float() - wanted).norm() / wanted.norm() < 0.03
