"""Stage 9: a block as a CUDA graph. What eager takes longer is the launches that a graph saves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .kit import Kit, distance

if TYPE_CHECKING:
    from .step import Step

PLACES = (("double_block", 0), ("single_block", 0))


def blocks(kit: Kit, engine: str, patcher: Any, step: Step) -> None:
    """Run a step; in it, time the first block of each kind as it is and from its graph."""
    options = patcher.model_options["transformer_options"]
    dit = dict(options.get("patches_replace", {}).get("dit", {}))
    for kind, index in PLACES:
        dit[kind, index] = timer(kit, f"{engine}: a {kind}", dit.get((kind, index)))
    step(patcher, dit)


def timer(kit: Kit, what: str, own: Callable[..., Any] | None) -> Any:
    """Return what takes a block's place, times it and runs it.

    Args:
        kit: takes the measurements.
        what: is timed.
        own: what takes its place already, as in engine fp8.
    """

    def time_it(given: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        # Here, not later: ComfyUI's original_block runs whichever block its loop has come to.
        def run() -> dict[str, Any]:
            # Copies: a block adds to what it is given in place.
            kept = given | {name: given[name].clone() for name in ("img", "txt") if name in given}
            return extra["original_block"](kept) if own is None else own(kept, extra)

        kit.note(what, round(kit.median(run, runs=10) * 1e3, 2), "ms")
        from_graph = f"{what} from its CUDA graph"
        if kit.device.type == "cuda":
            kit.attempt(from_graph, lambda: replayed(kit, from_graph, lambda: run()["img"]))
        else:
            kit.note(from_graph, "skipped: no CUDA")
        return run()

    return time_it


def replayed(kit: Kit, what: str, call: Callable[[], Tensor]) -> None:
    """Capture a call into a graph, note how long that takes to run and whether it gives the same.

    Raises:
        RuntimeError: something in the call cannot be captured.
    """
    wanted = call().clone()
    # As torch asks: warm up on another stream, so that nothing is made while capturing.
    other = torch.cuda.Stream(kit.device)
    other.wait_stream(torch.cuda.current_stream(kit.device))
    with torch.cuda.stream(other):
        for _ in range(3):
            call()
    torch.cuda.current_stream(kit.device).wait_stream(other)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = call()
    seconds = kit.median(graph.replay, runs=10)
    apart = distance(made, wanted)
    kit.note(what, round(seconds * 1e3, 2), "ms", holds=apart < 1e-3, apart_from_eager=apart)
