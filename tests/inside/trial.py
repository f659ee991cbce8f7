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
    "fp8 is the fastest": (
        {"bf16": 1.0, "int8": 0.9, "fp8": 0.5},
        True,
        "int8",
        "trial: bf16 1.00 ms, fp8 0.50 ms, int8 0.90 ms; engine fp8 is faster, by choice",
    ),
    "fp8 is faster, int8 is not": (
        {"bf16": 1.0, "int8": 1.2, "fp8": 0.5},
        True,
        "bf16",
        "int8 1.20 ms; int8 is not faster than bf16 here; engine fp8 is faster, by choice",
    ),
    "fp8 alone, little memory": (
        {"bf16": 1.0, "fp8": 0.5},
        False,
        "storage",
        "trial: bf16 1.00 ms, fp8 0.50 ms; this card has no fast int8 kernel; "
        "bf16 does not fit into its memory; engine fp8 is faster, by choice",
    ),
    "fp8 is slower than int8": (
        {"bf16": 3.4, "int8": 1.9, "fp8": 2.0},
        True,
        "int8",
        "trial: bf16 3.40 ms, fp8 2.00 ms, int8 1.90 ms",
    ),
    "fp8 is slower than all": ({"bf16": 1.0, "fp8": 2.0}, True, "bf16", "nothing is faster"),
}


@pytest.mark.parametrize(("times", "fits", "engine", "words"), RULES.values(), ids=list(RULES))
def test_the_rule(trial: Any, times: dict[str, float], fits: bool, engine: str, words: str) -> None:
    choice = trial.decide(times, bf16_fits=fits)
    assert choice.engine == engine
    assert words in choice.reason
    fastest = min(times, key=lambda name: times[name])
    assert ("engine fp8 is faster" in choice.reason) == (fastest == "fp8")


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


def test_the_trial_times_what_the_engines_compute(trial: Any) -> None:
    """Each way is run on the CPU, torch's fp8 matmul too, and gives the same product."""
    device = torch.device("cpu")
    by_device = inside.pack("ops.hosted.linear").by_device
    runs = trial.ways(device, (32, 512, 64), trial.any_matmul(), by_device)
    wanted = runs["bf16"]().float()
    for name, most in (("int8", 0.03), ("fp8", 0.1)):
        made = runs[name]()
        assert made.dtype == torch.bfloat16
        assert float((made.float() - wanted).norm() / wanted.norm()) < most, name
    times = trial.timed(runs, device)
    assert times.keys() == {"bf16", "int8", "fp8"} and all(0 < t < 1e4 for t in times.values())


def test_what_does_not_run_is_left_out(trial: Any, caplog: Any) -> None:
    def fails() -> Any:
        raise RuntimeError("no kernel image is available")

    times = trial.timed({"bf16": lambda: torch.ones(1), "fp8": fails}, torch.device("cpu"))
    assert times.keys() == {"bf16"}
    assert "fp8 does not run here (no kernel image is available)" in caplog.text


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
