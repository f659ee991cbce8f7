"""The trial that chooses how go_fast computes: its rule, what an administrator fixes."""

from __future__ import annotations

import sys
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import pytest
import torch
from runtime import inside
from runtime.lora_states import DEV
from torch import Tensor

SIZE = 24 * 10**9
CPU = torch.device("cpu")


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
        "nothing is a tenth faster than bf16",
    ),
    "as fast": ({"bf16": 1.0, "int8": 1.0}, True, "bf16", "nothing is a tenth faster"),
    "nearly as fast": ({"bf16": 1.0, "int8": 0.91}, True, "bf16", "nothing is a tenth faster"),
    "faster by enough": ({"bf16": 1.0, "int8": 0.89}, True, "int8", "int8 0.89 ms"),
    "nearly as fast, little memory": ({"bf16": 1.0, "int8": 0.99}, False, "int8", "int8 0.99 ms"),
    "slower, little memory": ({"bf16": 1.0, "int8": 1.2}, False, "storage", "bf16 does not fit"),
    "no kernel": ({"bf16": 1.0}, True, "bf16", "no fast int8 kernel runs here"),
    "no kernel, little memory": (
        {"bf16": 1.0},
        False,
        "storage",
        "no fast int8 kernel runs here",
    ),
    "fp8 is the fastest": (
        {"bf16": 1.0, "int8": 0.8, "fp8": 0.5},
        True,
        "int8",
        "trial: bf16 1.00 ms, fp8 0.50 ms, int8 0.80 ms; engine fp8 is faster, by choice",
    ),
    "fp8 is faster, int8 is not": (
        {"bf16": 1.0, "int8": 1.2, "fp8": 0.5},
        True,
        "bf16",
        "int8 1.20 ms; int8 is not a tenth faster than bf16 here; engine fp8 is faster, by choice",
    ),
    "fp8 alone, little memory": (
        {"bf16": 1.0, "fp8": 0.5},
        False,
        "storage",
        "trial: bf16 1.00 ms, fp8 0.50 ms; no fast int8 kernel runs here; "
        "bf16 does not fit into its memory; engine fp8 is faster, by choice",
    ),
    "fp8 is slower than int8": (
        {"bf16": 3.4, "int8": 1.9, "fp8": 2.0},
        True,
        "int8",
        "trial: bf16 3.40 ms, fp8 2.00 ms, int8 1.90 ms",
    ),
    "fp8 is slower than all": (
        {"bf16": 1.0, "fp8": 2.0},
        True,
        "bf16",
        "nothing is a tenth faster",
    ),
}


@pytest.mark.parametrize(("times", "fits", "engine", "words"), RULES.values(), ids=list(RULES))
def test_the_rule(trial: Any, times: dict[str, float], fits: bool, engine: str, words: str) -> None:
    choice = trial.decide(times, bf16_fits=fits)
    assert choice.engine == engine
    assert words in choice.reason
    fastest = min(times, key=lambda name: times[name])
    assert ("engine fp8 is faster" in choice.reason) == (fastest == "fp8")


FP16_RULES: dict[str, tuple[dict[str, float], bool, str, str]] = {
    "int8 is faster": ({"fp16": 3.4, "int8": 1.9}, True, "int8", "trial: fp16 3.40 ms, int8 1.90"),
    "int8 is slower": (
        {"fp16": 1, "int8": 1.2},
        True,
        "bf16",
        "nothing is a tenth faster than fp16 here",
    ),
    "no kernel": ({"fp16": 1.0}, False, "storage", "fp16 does not fit into its memory"),
}


@pytest.mark.parametrize(
    ("times", "fits", "engine", "words"), FP16_RULES.values(), ids=list(FP16_RULES)
)
def test_the_rule_on_a_card_without_bf16(
    trial: Any, times: dict[str, float], fits: bool, engine: str, words: str
) -> None:
    choice = trial.decide(times, bf16_fits=fits, plain="fp16")
    assert choice.engine == engine
    assert words in choice.reason


def test_a_cpu_stores_only(trial: Any) -> None:
    choice = trial.choose(SIZE, None)
    assert (choice.engine, choice.reason) == ("storage", "CPU has no int8 matmul")


@pytest.mark.parametrize("fixed", ["int8", "storage", "bf16", " INT8 "])
def test_an_administrator_fixes_it(trial: Any, fixed: str) -> None:
    for asked in ("auto", "fp8"):
        choice = trial.choose(SIZE, trial.named_engine(fixed, asked))
        wanted = (fixed.strip().lower(), f"{trial.VARIABLE} says so")
        assert (choice.engine, choice.reason) == wanted


@pytest.mark.parametrize("fixed", [None, "", "auto"])
def test_where_none_does_the_user_chooses_or_the_trial(trial: Any, fixed: str | None) -> None:
    choice = trial.choose(SIZE, trial.named_engine(fixed, "int8"))
    assert (choice.engine, choice.reason) == ("int8", "as chosen")
    assert trial.named_engine(fixed, "auto") is None


def test_nonsense_is_named(trial: Any) -> None:
    with pytest.raises(ValueError, match="FLUX_HOTSWAP_ENGINE is 'turbo': write one of auto, int8"):
        trial.named_engine("turbo", "auto")


@pytest.mark.parametrize(
    ("dtype", "plain"), [(torch.bfloat16, "bf16"), (torch.float16, "fp16")], ids=str
)
def test_the_trial_times_what_the_engines_compute(
    trial: Any, dtype: torch.dtype, plain: str
) -> None:
    """Each way is run on the CPU, torch's fp8 matmul too, and gives the same product."""
    by_device = inside.pack("ops.hosted.linear").by_device
    runs = trial.ways(CPU, (32, 512, 64), dtype, trial.any_matmul(), by_device)
    wanted = runs[plain]().float()
    for name, kind, most in (("int8", dtype, 0.03), ("fp8", torch.bfloat16, 0.08)):
        made = runs[name]()
        assert made.dtype == kind
        assert float((made.float() - wanted).norm() / wanted.norm()) < most, name
    times = trial.timed(runs, CPU)
    assert times.keys() == {plain, "int8", "fp8"} and all(0 < t < 1e4 for t in times.values())


def test_it_is_timed_in_what_comfyui_computes_in(comfy: Any, trial: Any) -> None:
    """A CPU, which ComfyUI takes for one without bf16, computes a model in bf16 in float32."""
    assert trial.computed_in(CPU) == torch.float32
    assert comfy.model_management.unet_manual_cast(torch.bfloat16, CPU) == torch.float32


class CompilationError(Exception):
    """As triton has it: no RuntimeError."""


FAILURES: dict[str, tuple[Exception, str]] = {
    "no kernel": (RuntimeError("no kernel image is available"), "RuntimeError: no kernel image"),
    "no Python.h": (CalledProcessError(1, ["gcc"]), "CalledProcessError: Command '['gcc']'"),
    "a compiler's own": (CompilationError("at 3:4"), "CompilationError: at 3:4"),
}


@pytest.mark.parametrize(("error", "words"), FAILURES.values(), ids=list(FAILURES))
def test_what_does_not_run_is_left_out(
    trial: Any, caplog: Any, error: Exception, words: str
) -> None:
    def fails() -> Any:
        raise error

    times = trial.timed({"bf16": lambda: torch.ones(1), "int8": fails}, CPU)
    assert times.keys() == {"bf16"}
    assert trial.timed({"bf16": fails, "int8": lambda: torch.ones(1)}, CPU) == {}  # unchecked
    assert f"int8 does not run here ({words}" in caplog.text


FULL = {
    "of the allocator": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB."),
    "of the driver": torch.AcceleratorError("CUDA error: out of memory"),
    "of cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
}


@pytest.mark.parametrize("kind", ["a cancel", *FULL])
def test_what_says_nothing_of_an_engine_ends_it(comfy: Any, trial: Any, kind: str) -> None:
    error = FULL.get(kind) or comfy.model_management.InterruptProcessingException()

    def stopped() -> Any:
        raise error

    with pytest.raises(type(error)):
        trial.timed({"bf16": lambda: torch.ones(1), "int8": stopped}, CPU)


def test_a_full_card_is_tried_again(trial: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine is not left out until the process ends for what lay on the card meanwhile."""
    full = [True]
    asked: list[torch.device] = []
    ways = trial.ways

    def filled(*given: Any) -> Any:
        if full:
            raise torch.OutOfMemoryError
        return ways(given[0], (32, 512, 64), *given[2:])

    trial.measure.cache_clear()
    monkeypatch.setattr(trial, "ways", filled)
    monkeypatch.setattr(inside.pack("engine.room"), "make_room", asked.append)
    with pytest.raises(torch.OutOfMemoryError):
        trial.measure(CPU, torch.bfloat16)
    full.clear()
    assert trial.measure(CPU, torch.bfloat16).keys() == {"bf16"}
    assert asked == [CPU] * 2
    trial.measure.cache_clear()


def test_room_is_made_on_cards_alone(comfy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, torch.device]] = []
    monkeypatch.setattr(comfy.model_management, "free_memory", lambda *of: asked.append(of))
    room = inside.pack("engine.room")
    for device in (CPU, torch.device("cuda", 0)):
        room.make_room(device)
    assert asked == [(room.ROOM, torch.device("cuda", 0))]


@pytest.mark.parametrize("way", ["no comfy-kitchen", "no such device"])
def test_int8_by_choice_is_stored_where_nothing_multiplies_in_it(
    comfy: Any, trial: Any, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    with monkeypatch.context() as patch:
        if way == "no comfy-kitchen":
            patch.setitem(sys.modules, "comfy_kitchen", None)
        else:
            device = torch.device("ipu")
            patch.setattr(comfy.model_management, "get_torch_device", lambda: device)
        choice = trial.choose(SIZE, trial.named_engine(None, "int8"))
    assert choice == trial.Choice("storage", "as chosen; nothing multiplies in int8 here")


@pytest.mark.parametrize("error", FULL.values(), ids=list(FULL))
def test_a_full_card_is_no_wrong_file(
    comfy: Any, models: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(comfy.sd, "load_diffusion_model", full)
    with pytest.raises(type(error)):
        inside.pack("engine.models").load_flux(models / "diffusion_models" / DEV)


def test_a_device_that_fails_at_all_has_no_times(trial: Any, caplog: Any) -> None:
    assert trial.measure(torch.device("ipu"), torch.bfloat16) == {}  # none here
    assert "the trial does not run here" in caplog.text


PRODUCT = torch.randn(64, 64, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
WRONG = {
    "nothing": torch.zeros_like(PRODUCT),
    "what lay there": torch.full_like(PRODUCT, torch.nan),
    "another scale": 1.2 * PRODUCT,
    "half of the rows": torch.cat((PRODUCT[:32], 0 * PRODUCT[32:])),
}


@pytest.mark.parametrize("made", WRONG.values(), ids=list(WRONG))
def test_what_multiplies_wrongly_is_left_out(trial: Any, caplog: Any, made: Tensor) -> None:
    """However fast it is."""
    runs = {"bf16": lambda: PRODUCT, "int8": lambda: made, "fp8": lambda: 1.05 * PRODUCT}
    assert trial.timed(runs, CPU).keys() == {"bf16", "fp8"}
    assert "int8 is wrong here" in caplog.text


def test_the_plain_back_end_is_no_fast_one(trial: Any, caplog: Any) -> None:
    assert trial.any_matmul() is not None
    assert trial.fast_matmul(CPU, torch.bfloat16) is None
    assert (
        f"int8 in 'eager', which is not fast with this torch ({torch.__version__})" in caplog.text
    )


def test_without_comfy_kitchen_the_log_says_so(
    trial: Any, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "comfy_kitchen", None)
    assert trial.fast_matmul(CPU, torch.bfloat16) is None
    assert "comfy-kitchen is not installed" in caplog.text


BACK_ENDS: dict[str, tuple[str | None, bool, list[str]]] = {
    "CUDA 12": ("12.8", False, ["hip", "triton", "ascend"]),
    "CUDA 13": ("13.0", False, ["cuda", "hip", "triton", "ascend"]),
    "AMD": (None, True, ["hip", "ascend"]),
    "AMD, where triton was turned on": (None, False, ["hip", "triton", "ascend"]),
}


@pytest.mark.parametrize(("cuda", "amd", "fast"), BACK_ENDS.values(), ids=list(BACK_ENDS))
def test_back_ends_that_are_timed(trial: Any, cuda: str | None, amd: bool, fast: list[str]) -> None:
    names = ("cuda", "hip", "triton", "ascend", "eager", "another")
    assert [name for name in names if trial.is_fast(name, cuda, amd=amd)] == fast


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
