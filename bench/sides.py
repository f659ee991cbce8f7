"""Two real ComfyUI servers that draw the same: one with the pack and our graph, one without."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import graphs
from graphs import Ask
from mini_flux import loras
from runtime.client import Client
from runtime.comfyui import find_comfyui
from runtime.models import small_models
from runtime.server import ComfyServer

from flux_hotswap.prediction.fill import Prompt

STEADY = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
}
"""Threads that wait for each other on a busy machine measure only it. And glibc keeps freed memory
or does not as it happens, which moves a peak by 40 MB; so told, it gives all back at once."""

LORAS = ("one.safetensors", "two.safetensors")


@dataclass(frozen=True)
class Run:
    """What one prompt took.

    Attributes:
        seconds: from handing it in until the server says that it is done.
        cpu: seconds of processor time that the server took for it.
        nodes: the same of each node that ran, by class; nodes of a class together.
        peak: most memory of the server while it ran, in MB.
    """

    seconds: float
    cpu: float
    nodes: dict[str, float]
    peak: float


class Side:
    """One server and its graph.

    Args:
        graph: makes the API prompt of what is asked for.
        pack: whether the pack is installed.
    """

    def __init__(self, graph: Callable[[Ask], Prompt], *, pack: bool) -> None:
        self.graph = graph
        # Both get the plug-in that lets the stock loaders take the small files.
        self.server = ComfyServer(find_comfyui(), models=small_models(), env=STEADY, pack=pack)
        self.client = Client("")

    def start(self) -> float:
        """Start the server; seconds until it answers."""
        begun = time.perf_counter()
        self.server.start()
        taken = time.perf_counter() - begun
        self.client = Client(self.server.url)
        (self.server.models_dir / "loras").mkdir(exist_ok=True)
        for name in LORAS:
            loras.write(loras.diffusers(loras.blocks()), self.server.models_dir / "loras" / name)
        return taken

    def memory(self, what: str) -> float:
        """What the system says of the server, in MB: VmRSS is now, VmHWM the most so far."""
        return memory(self.server.pid or 0, what)

    def cpu(self) -> float:
        """Processor time of the server so far, in seconds: another job takes none of it."""
        fields = Path(f"/proc/{self.server.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def draw(self, ask: Ask, *, count_anew: bool = True) -> Run:
        """Run one prompt.

        Args:
            ask: what is drawn.
            count_anew: whether the peak is that of this prompt, not that since the start.
        """
        if count_anew:
            Path(f"/proc/{self.server.pid}/clear_refs").write_text("5")  # resets VmHWM
        prompt = self.graph(ask)
        moments: list[tuple[str, float]] = []

        def note(node: str, _: int, last: int) -> None:
            if last == 0:  # a node starts
                moments.append((node, self.cpu()))

        before, begun = self.cpu(), time.perf_counter()
        self.client.run(prompt, on_progress=note)
        taken, ended = time.perf_counter() - begun, self.cpu()
        nodes: dict[str, float] = {}
        ends = [*(moment for _, moment in moments[1:]), ended]
        for (node, moment), end in zip(moments, ends, strict=False):
            kind = prompt[node]["class_type"]
            nodes[kind] = nodes.get(kind, 0.0) + end - moment
        return Run(taken, ended - before, nodes, self.memory("VmHWM"))

    def hand_in(self, ask: Ask) -> float:
        """Hand in a prompt and wait for its end; seconds until the server had checked it."""
        prompt = self.graph(ask)
        begun = time.perf_counter()
        handed = self.client.submit(prompt)
        taken = time.perf_counter() - begun
        self.client.wait(handed)
        return taken


def memory(pid: int, what: str) -> float:
    """What the system says of a process, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{what}:"))


def make() -> dict[str, Side]:
    """Return both sides, not started."""
    return {
        "ours": Side(graphs.ours, pack=True),
        "stock": Side(graphs.stock, pack=False),
    }


def stop(sides: dict[str, Side]) -> None:
    """End both servers."""
    for side in sides.values():
        side.server.stop()


def in_turn(sides: dict[str, Side], asks: Sequence[Ask]) -> dict[str, list[Run]]:
    """Draw each on both; the second goes first every other time."""
    found: dict[str, list[Run]] = {name: [] for name in sides}
    for index, ask in enumerate(asks):
        order: list[Any] = list(sides.items())
        for name, side in order if index % 2 == 0 else order[::-1]:
            found[name].append(side.draw(ask))
    return found
