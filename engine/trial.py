"""Which arithmetic go_fast uses on this machine: a timed trial at a shape of FLUX decides."""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from ..errors import SettingsError
from ..ops.int8 import LARGEST_GROUP

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..ops.hosted.linear import Product
    from .int8_linear import Matmul

VARIABLE: Final = "FLUX_HOTSWAP_ENGINE"
CHOICES: Final = ("auto", "int8", "storage", "bf16", "fp8")
"""What an administrator may fix; `auto` is the trial."""

SHAPE: Final = (4608, 3072, 12288)
"""Tokens of 1024x1024 with the prompt's, and an MLP of FLUX.1: M, K, N."""

ROUNDS: Final = 7
FAST_BACK_ENDS: Final = frozenset(("cuda", "hip", "triton", "ascend"))
"""Back ends of comfy-kitchen with a kernel of their own; `eager` is slower than bf16 everywhere."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """How go_fast computes.

    Attributes:
        engine: "int8", "storage" (int8 weights, multiplied in bf16) or "bf16".
        reason: why, for the report.
    """

    engine: str
    reason: str


def decide(times: Mapping[str, float], *, bf16_fits: bool) -> Choice:
    """Return the fastest engine in the arithmetic that go_fast promises, from times of one matmul.

    Engine fp8 is timed and told, not taken: it merges LoRAs into its weights and rounds more, so
    that a picture would depend on the card. Who wants it says so.

    Args:
        times: milliseconds of "bf16" and, where they run, of "int8" and "fp8".
        bf16_fits: whether the whole model in bf16 fits into the card's memory.
    """
    bf16, int8, fp8 = (times.get(name, math.inf) for name in ("bf16", "int8", "fp8"))
    told = ", ".join(f"{name} {value:.2f} ms" for name, value in sorted(times.items()))
    by_choice = "; engine fp8 is faster, by choice" if fp8 < min(bf16, int8) else ""
    if int8 < bf16:
        return Choice("int8", f"trial: {told}{by_choice}")
    why = f"trial: {told}" if len(times) > 1 else ""
    why += "" if "int8" in times else f"{'; ' if why else ''}this card has no fast int8 kernel"
    if not bf16_fits:
        return Choice("storage", f"{why}; bf16 does not fit into its memory{by_choice}")
    slower = (
        "int8 is not faster than bf16 here" if by_choice else "nothing is faster than bf16 here"
    )
    return Choice("bf16", f"{why}; {slower}{by_choice}")


def fixed_engine(text: str | None) -> str:
    """Return the engine that an administrator's variable names; "auto" for none.

    Raises:
        SettingsError: it says something else than `CHOICES`.
    """
    fixed = (text or "").strip().lower() or "auto"
    if fixed not in CHOICES:
        raise SettingsError(f"{VARIABLE} is {fixed!r:.60}: write one of {', '.join(CHOICES)}.")
    return fixed


def choose(size: int, fixed: str | None, asked: str = "auto") -> Choice:
    """Return how go_fast computes on ComfyUI's device.

    Args:
        size: bytes of the model in bf16.
        fixed: what the administrator's variable says, None if it is not set.
        asked: what the user says, where the administrator says nothing.

    Raises:
        SettingsError: an administrator's variable says something else than `CHOICES`.
    """
    import comfy.model_management as management

    fixed = fixed_engine(fixed)
    device: torch.device = management.get_torch_device()
    if fixed != "auto":
        return Choice(fixed, f"{VARIABLE} says so")
    if asked != "auto":
        return Choice(asked, "as chosen")
    if device.type != "cuda":
        name = "CPU" if device.type == "cpu" else device.type
        return Choice("storage", f"{name} has no int8 matmul")
    room: Any = management.get_total_memory(device)
    return decide(measure(device), bf16_fits=room > 1.15 * size)


@lru_cache(maxsize=4)
def measure(device: torch.device) -> dict[str, float]:
    """Return milliseconds of one matmul at `SHAPE`, in turns, for each engine that runs."""
    from ..ops.hosted.linear import by_device, find_product

    product = by_device if find_product(device) is by_device else None
    return timed(ways(device, SHAPE, fast_matmul(device), product), device)


def ways(
    device: torch.device,
    shape: tuple[int, int, int],
    matmul: Matmul | None,
    product: Product | None,
) -> dict[str, Callable[[], Tensor]]:
    """Return one matmul in each engine, as that engine computes it, all of the same numbers.

    Args:
        device: where it is.
        shape: M, K, N.
        matmul: multiplies in int8; None leaves it out.
        product: multiplies in fp8; None leaves it out.
    """
    import torch

    from ..ops.hosted.linear import linear
    from ..ops.hosted.quantise import E5M2_MAX, quantise_weight, scale_for
    from ..ops.int8 import quantise

    tokens, width, height = shape
    x = torch.randn(tokens, width, device=device, dtype=torch.bfloat16)
    weight = torch.randn(height, width, device=device, dtype=torch.bfloat16)
    runs: dict[str, Callable[[], Tensor]] = {"bf16": lambda: torch.nn.functional.linear(x, weight)}
    if matmul is not None:
        steps, scale = quantise(weight.to(torch.float32), LARGEST_GROUP)
        runs["int8"] = lambda: matmul(x, steps, scale, None, LARGEST_GROUP)
    if product is not None:
        held, known = quantise_weight(weight), scale_for(x.abs().amax(), E5M2_MAX)
        runs["fp8"] = lambda: linear(product, x, held, None, known)
    return runs


def timed(runs: Mapping[str, Callable[[], Tensor]], device: torch.device) -> dict[str, float]:
    """Return the median milliseconds of each, run in turns, without those that do not run."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS + 2):
        for name, run in runs.items():
            times[name].append(_once(name, run, device))
    medians = {name: statistics.median(found[2:]) for name, found in times.items()}
    return {name: value for name, value in medians.items() if value < math.inf}


def _once(name: str, run: Callable[[], Tensor], device: torch.device) -> float:
    """Return milliseconds of one run; infinity where the device does not take it."""
    _wait(device)
    began = time.perf_counter()
    try:
        run()
        _wait(device)
    except RuntimeError as error:
        log.warning("go_fast: %s does not run here (%s)", name, error)
        return math.inf
    return (time.perf_counter() - began) * 1e3


def _wait(device: torch.device) -> None:
    """Wait for what the device was given; a CPU is given nothing to do later."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def fast_matmul(device: torch.device) -> Matmul | None:
    """Return comfy-kitchen's int8 matmul where it has a kernel for this device, else None."""
    matmul = any_matmul()
    if matmul is None:
        return None
    import comfy_kitchen
    import torch

    arguments = {
        "x": torch.zeros(32, 256, device=device, dtype=torch.bfloat16),
        "weight": torch.zeros(256, 256, device=device, dtype=torch.int8),
        "weight_scale": torch.ones(256, 1, device=device),
        "bias": None,
        "out_dtype": torch.bfloat16,
        "convrot": True,
        "convrot_groupsize": LARGEST_GROUP,
    }
    registry: Any = comfy_kitchen.registry
    try:
        name = registry.get_capable_backend("int8_linear", arguments)
    except comfy_kitchen.exceptions.BackendError:  # none takes it
        return None
    return matmul if name in FAST_BACK_ENDS else None


def any_matmul() -> Matmul | None:
    """Return comfy-kitchen's int8 matmul, fast or not; None where it is not installed."""
    import torch

    try:
        import comfy_kitchen  # noqa: F401 - it registers the operation
    except ImportError:
        return None
    codes = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}

    # The operation, not the function of the package: torch.compile does not see into that.
    def multiply(
        tokens: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None, group: int
    ) -> Tensor:
        made: Tensor = torch.ops.comfy_kitchen.int8_linear(
            tokens, weight, scale, bias, codes[tokens.dtype], group > 1, group
        )
        return made

    return multiply
