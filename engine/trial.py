"""Which arithmetic go_fast uses on this machine: a timed trial at a shape of FLUX decides."""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..errors import SettingsError
from ..ops.int8 import LARGEST_GROUP

T = TypeVar("T")

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
GAIN: Final = 0.9
"""The time that int8 may take, in that of a model as it is. What is nearly as fast would be chosen
at one start and not at the next, and a picture hangs on it."""

LIMIT: Final = 0.1
"""Largest error of a way's product; fp8 inputs alone round by 0.05."""

NAMES: Final = {"torch.bfloat16": "bf16", "torch.float16": "fp16", "torch.float32": "float32"}
KITCHEN_CUDA: Final = 13
"""The first CUDA of torch that comfy-kitchen's own kernels are for."""

FAST_BACK_ENDS: Final = frozenset(("cuda", "hip", "triton", "ascend"))
"""Back ends of comfy-kitchen with a kernel of their own; `eager` is slower than bf16 everywhere."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """How go_fast computes.

    Attributes:
        engine: "int8", "storage" (int8 weights, multiplied in bf16) or "bf16"; "fp8" too, where
            somebody chose.
        reason: why, for the report.
    """

    engine: str
    reason: str


def decide(times: Mapping[str, float], *, bf16_fits: bool, plain: str = "bf16") -> Choice:
    """Return the fastest engine in the arithmetic that go_fast promises, from times of one matmul.

    Engine fp8 is timed and told, not taken: it merges LoRAs into its weights and rounds more, so
    that a picture would depend on the card. Who wants it says so.

    Args:
        times: milliseconds of `plain` and, where they run, of "int8" and "fp8".
        bf16_fits: whether the whole model in bf16 fits into the card's memory.
        plain: in what ComfyUI computes a model in bf16 here: "fp16" on cards without bf16.
    """
    own, int8, fp8 = (times.get(name, math.inf) for name in (plain, "int8", "fp8"))
    told = ", ".join(f"{name} {value:.2f} ms" for name, value in sorted(times.items()))
    by_choice = "; engine fp8 is faster, by choice" if fp8 < min(own, int8) else ""
    if int8 < own * (GAIN if bf16_fits else 1.0):
        return Choice("int8", f"trial: {told}{by_choice}")
    why = f"trial: {told}" if len(times) > 1 else ""
    why += "" if "int8" in times else f"{'; ' if why else ''}no fast int8 kernel runs here"
    if not bf16_fits:
        return Choice("storage", f"{why}; {plain} does not fit into its memory{by_choice}")
    slower = "int8 is not" if by_choice else "nothing is"
    return Choice("bf16", f"{why}; {slower} a tenth faster than {plain} here{by_choice}")


def named_engine(text: str | None, asked: str) -> Choice | None:
    """Return the engine that somebody chose; None where the trial is to choose.

    Args:
        text: what the administrator's variable says, None if it is not set.
        asked: what the user says, where the administrator says nothing.

    Raises:
        SettingsError: the variable says something else than `CHOICES`.
    """
    fixed = (text or "").strip().lower() or "auto"
    if fixed not in CHOICES:
        raise SettingsError(f"{VARIABLE} is {fixed!r:.60}: write one of {', '.join(CHOICES)}.")
    if fixed != "auto":
        return Choice(fixed, f"{VARIABLE} says so")
    return None if asked == "auto" else Choice(asked, "as chosen")


def choose(size: int, named: Choice | None) -> Choice:
    """Return how go_fast computes on ComfyUI's device.

    Args:
        size: bytes of the model in bf16.
        named: what somebody chose, see `named_engine`; None for the trial.
    """
    import comfy.model_management as management

    device: torch.device = management.get_torch_device()
    if named is not None:
        return _as_it_runs(named, device) if named.engine == "int8" else named
    if device.type != "cuda":
        name = "CPU" if device.type == "cpu" else device.type
        return Choice("storage", f"{name} has no int8 matmul")
    room: Any = management.get_total_memory(device)
    dtype = computed_in(device)
    fits = room > 1.15 * size
    return decide(measure(device, dtype), bf16_fits=fits, plain=NAMES[str(dtype)])


def _as_it_runs(named: Choice, device: torch.device) -> Choice:
    """Return int8 as somebody chose it; its storage alone where nothing multiplies in it."""
    matmul = any_matmul()

    def small() -> Tensor:
        return ways(device, (32, 256, 256), computed_in(device), matmul, None)["int8"]()

    if matmul is not None and _tried("int8", small, device) is not None:
        return named
    return Choice("storage", f"{named.reason}; nothing multiplies in int8 here")


def computed_in(device: torch.device) -> torch.dtype:
    """Return in what ComfyUI computes a FLUX model in bf16: fp16 on a card without bf16."""
    import comfy.model_management as management
    import torch

    known = [torch.bfloat16, torch.float16, torch.float32]  # in ComfyUI's order for FLUX
    return management.unet_manual_cast(torch.bfloat16, device, known) or torch.bfloat16


@lru_cache(maxsize=4)
def measure(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Return milliseconds of one matmul at `SHAPE`, in turns, for each engine that runs.

    Args:
        device: where it is.
        dtype: in what ComfyUI computes the model.

    Raises:
        torch.OutOfMemoryError: the card is full, and not of models that ComfyUI can move.
    """

    def trial() -> dict[str, float]:
        from ..ops.hosted.linear import by_device, find_product
        from .room import make_room

        make_room(device)
        product = by_device if find_product(device) is by_device else None
        return timed(ways(device, SHAPE, dtype, fast_matmul(device, dtype), product), device)

    return _tried("the trial", trial, device) or {}


def ways(
    device: torch.device,
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    matmul: Matmul | None,
    product: Product | None,
) -> dict[str, Callable[[], Tensor]]:
    """Return one matmul in each engine, as that engine computes it, all of the same numbers.

    The first is that of a model that is not quantised.

    Args:
        device: where it is.
        shape: M, K, N.
        dtype: in what ComfyUI computes the model.
        matmul: multiplies in int8; None leaves it out.
        product: multiplies in fp8; None leaves it out.
    """
    import torch

    from ..ops.hosted.linear import linear
    from ..ops.hosted.quantise import E5M2_MAX, quantise_weight, scale_for
    from ..ops.int8 import quantise

    tokens, width, height = shape
    x = torch.randn(tokens, width, device=device, dtype=dtype)
    weight = torch.randn(height, width, device=device, dtype=dtype)
    runs: dict[str, Callable[[], Tensor]] = {}
    runs[NAMES[str(dtype)]] = lambda: torch.nn.functional.linear(x, weight)
    if matmul is not None:
        steps, scale = quantise(weight.to(torch.float32), LARGEST_GROUP)
        runs["int8"] = lambda: matmul(x, steps, scale, None, LARGEST_GROUP)
    if product is not None:
        held = quantise_weight(weight.to(torch.bfloat16))
        known = scale_for(x.abs().amax(), E5M2_MAX)
        runs["fp8"] = lambda: linear(product, x, held, None, known)
    return runs


def timed(runs: Mapping[str, Callable[[], Tensor]], device: torch.device) -> dict[str, float]:
    """Return the median milliseconds of each, run in turns, without those that do not run.

    What makes another product than the first is left out as well; the log says why.
    """
    runs = _sound(runs, device)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS + 2):
        for name, run in runs.items():
            times[name].append(_once(name, run, device))
    medians = {name: statistics.median(found[2:]) for name, found in times.items()}
    return {name: value for name, value in medians.items() if value < math.inf}


def _sound(
    runs: Mapping[str, Callable[[], Tensor]], device: torch.device
) -> dict[str, Callable[[], Tensor]]:
    """Return the first and those that run with its product; none if the first does not run."""
    first, *others = runs
    wanted = made = _tried(first, runs[first], device)
    if wanted is None:
        return {}
    sound = {first: runs[first]}
    for name in others:
        # The last product is held meanwhile, and the first: a kernel that writes nothing would
        # else be given their memory, and so return them.
        made = _tried(name, runs[name], device)
        if made is None:
            continue
        off, length = _length(made - wanted), _length(wanted)
        if off <= LIMIT * length:  # NaN is not
            sound[name] = runs[name]
        else:
            log.warning("go_fast: %s is wrong here, by %.3g of %.3g", name, off, length)
    return sound


def _length(values: Tensor) -> float:
    """Return the length of a product as a vector; its squares are beyond fp16."""
    import torch

    return float(torch.linalg.vector_norm(values, dtype=torch.float32))


def _once(name: str, run: Callable[[], Tensor], device: torch.device) -> float:
    """Return milliseconds of one run; infinity where the device does not take it."""
    _wait(device)
    began = time.perf_counter()
    made = _tried(name, run, device)
    return math.inf if made is None else (time.perf_counter() - began) * 1e3


def _tried(name: str, run: Callable[[], T], device: torch.device) -> T | None:
    """Return what a run makes; None, and the reason in the log, where it does not run here."""
    import comfy.model_management as management

    from ..ops.full import is_full

    try:
        made = run()
        _wait(device)
    except management.InterruptProcessingException:  # an ordinary Exception on older versions
        raise
    except Exception as error:  # a kernel's compiler raises anything
        if is_full(error):  # there may be room later, and what is left out is so until the end
            raise
        log.warning("go_fast: %s does not run here (%s: %s)", name, type(error).__name__, error)
        return None
    return made


def _wait(device: torch.device) -> None:
    """Wait for what the device was given; a CPU is given nothing to do later."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def fast_matmul(device: torch.device, dtype: torch.dtype) -> Matmul | None:
    """Return comfy-kitchen's int8 matmul where it has a kernel for this device, else None.

    Args:
        device: where it is.
        dtype: of tokens.
    """
    matmul = any_matmul()
    if matmul is None:
        log.warning("go_fast: comfy-kitchen is not installed, so int8 is not fast here")
        return None
    import comfy_kitchen
    import torch

    from .models import core_knows_int8

    arguments = {
        "x": torch.zeros(32, 256, device=device, dtype=dtype),
        "weight": torch.zeros(256, 256, device=device, dtype=torch.int8),
        "weight_scale": torch.ones(256, 1, device=device),
        "bias": None,
        "out_dtype": dtype,
        "convrot": True,
        "convrot_groupsize": LARGEST_GROUP,
    }
    registry: Any = comfy_kitchen.registry
    try:
        name = registry.get_capable_backend("int8_linear", arguments)
    except comfy_kitchen.exceptions.BackendError as error:  # none takes it
        log.warning("go_fast: comfy-kitchen has no int8 here (%s)", error)
        return None
    amd = torch.version.hip is not None and not core_knows_int8()
    if is_fast(name, torch.version.cuda, amd=amd):
        return matmul
    told = "go_fast: comfy-kitchen multiplies int8 in %r, which is not fast with this torch (%s)"
    log.warning(told, name, torch.__version__)
    return None


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


def is_fast(back_end: str, cuda: str | None, *, amd: bool) -> bool:
    """Whether a back end of comfy-kitchen is one to be timed.

    Newer versions of ComfyUI turn off at their start what is not; on older ones nobody did.

    Args:
        back_end: its name there.
        cuda: torch's version of CUDA; None without.
        amd: whether the card is AMD's and nobody turned `triton` on for it: some hang in it.
    """
    if back_end == "cuda":
        return cuda is not None and int(cuda.split(".")[0]) >= KITCHEN_CUDA
    if back_end == "triton" and amd:
        return False
    return back_end in FAST_BACK_ENDS
