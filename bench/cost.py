"""What it costs to use the pack: its import, a whole prompt, and how that grows.

    python3 dev.py bench cost      # about 8 minutes; Linux

Two real ComfyUI servers draw the same request with the small FLUX on one thread each: one with the
pack and the shipped text_to_image workflow, one without the pack and with ComfyUI's own nodes. They
take turns. Every prompt has a new seed, so both draw anew. The stock graph pads T5 to 512 tokens,
as ours does. Time is the server's processor time, to which other jobs of the machine add nothing;
a few are wall-clock time and say so. Memory is what the system counts at the peak, with an
allocator that gives back at once what is freed. Writes bench/results/cost.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import common

sys.path[:0] = [str(common.ROOT / "tests"), str(common.ROOT), str(Path(__file__).parent)]

import sides as both  # noqa: E402 - after the path
from graphs import Ask  # noqa: E402
from runtime.comfyui import find_comfyui  # noqa: E402
from sides import LORAS, Run, Side  # noqa: E402

PROBE = common.ROOT / "tests" / "server" / "imports.py"
WHOLE = Ask(seed=0, side=256, steps=8)
SMALL = Ask(seed=0, side=256, steps=2)

Sides = dict[str, Side]
Report = dict[str, Any]

SEEDS = iter(range(1, 2**32))
"""Of one process: no prompt is like one before."""


def anew(ask: Ask, times: int) -> Iterator[Ask]:
    """Yield the same with new seeds."""
    for _ in range(times):
        yield replace(ask, seed=next(SEEDS))


def share(ours: float, stock: float) -> float:
    """Return ours as a share of the other's."""
    return round(ours / stock, 4)


# --- the start ---


def import_seconds() -> float:
    """Import the pack as ComfyUI does, in a fresh process that has loaded what ComfyUI has.

    Returns:
        Processor time of the import.
    """
    comfyui = find_comfyui()
    command = [comfyui.python, PROBE, comfyui.path, common.ROOT, common.ROOT / "tests"]
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=True
    )
    return float(json.loads(done.stdout.splitlines()[-1])["cpu_seconds"])


def start(runs: int, ask: Ask) -> tuple[Report, Sides]:
    """Start fresh servers in turn; each draws one prompt.

    Returns:
        The import of the pack, and for both sides the start, the memory after it, the first prompt
        and the peak up to its end. Then the servers of the last round, which go on.
    """
    imports = [import_seconds() for _ in range(runs)]
    found: dict[str, list[dict[str, float]]] = {"ours": [], "stock": []}
    sides: Sides = {}
    for index in range(runs):
        both.stop(sides)
        sides = both.make()
        order = list(sides.items())
        for name, side in order if index % 2 == 0 else order[::-1]:
            wall = side.start()
            begun = {"start": side.cpu(), "start_wall": wall, "idle_mb": side.memory("VmRSS")}
            first = side.draw(next(anew(ask, 1)), count_anew=False)
            found[name].append(begun | {"first_prompt": first.cpu, "peak_mb": first.peak})
    report: Report = {"import": common.summary(imports)}
    for what in ("start", "start_wall", "first_prompt", "idle_mb", "peak_mb"):
        report[what] = pair({name: [run[what] for run in all_] for name, all_ in found.items()})
    return report, sides


def pair(values: dict[str, list[float]]) -> Report:
    """Both sides' medians and values, ours as a share of the other, and the quartiles of that."""
    medians = {name: round(statistics.median(all_), 4) for name, all_ in values.items()}
    ratios = [a / b for a, b in zip(values["ours"], values["stock"], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {
        "median": medians,
        "runs": {name: [round(value, 4) for value in all_] for name, all_ in values.items()},
        "of_stock": share(medians["ours"], medians["stock"]),
        "of_stock_quartiles": [round(low, 4), round(high, 4)],
    }


# --- a prompt ---


def prompt(sides: Sides, runs: int, ask: Ask) -> Report:
    """A prompt with another seed, the check of its graph, and the same prompt again."""
    both.in_turn(sides, list(anew(ask, 1)))
    drawn = both.in_turn(sides, list(anew(ask, runs)))
    report: Report = {
        "whole": pair({name: [run.cpu for run in all_] for name, all_ in drawn.items()}),
        "wall": pair({name: [run.seconds for run in all_] for name, all_ in drawn.items()}),
        "peak_mb": pair({name: [run.peak for run in all_] for name, all_ in drawn.items()}),
        "nodes": {name: by_node(all_) for name, all_ in drawn.items()},
    }
    usual = [sides["stock"].draw(each).cpu for each in anew(replace(ask, tokens=256), runs)]
    report["stock with 256 tokens"] = common.summary(usual)
    report["again"] = again(sides, runs, ask)
    return report


def by_node(drawn: Sequence[Run]) -> dict[str, float]:
    """The median seconds of every node that ran."""
    kinds = dict.fromkeys(kind for run in drawn for kind in run.nodes)
    return {
        kind: round(statistics.median(run.nodes.get(kind, 0.0) for run in drawn), 4)
        for kind in kinds
    }


def again(sides: Sides, runs: int, ask: Ask) -> Report:
    """The same prompt again: what runs, how long it takes, how long the check of its graph."""
    same = next(anew(ask, 1))
    both.in_turn(sides, [same])
    repeated = both.in_turn(sides, [same] * runs)
    checks = {name: partial(side.hand_in, same) for name, side in sides.items()}
    return {
        "nodes_that_run": {
            name: max(len(run.nodes) for run in all_) for name, all_ in repeated.items()
        },
        "whole": pair({name: [run.seconds for run in all_] for name, all_ in repeated.items()}),
        "check": pair(common.take_turns(checks, runs)),
    }


# --- growth ---


GROWTH: dict[str, tuple[str, dict[float, Ask]]] = {
    "steps": ("steps", {n: replace(SMALL, steps=n) for n in (1, 2, 4, 8, 16)}),
    "batch": ("pictures in a batch", {n: replace(SMALL, batch=n) for n in (1, 2, 4)}),
    "size": (
        "megapixels",
        {side * side / 1e6: replace(SMALL, side=side) for side in (256, 384, 512)},
    ),
    "loras": ("LoRAs", {n: replace(SMALL, loras=LORAS[:n]) for n in (0, 1, 2)}),
}
"""What grows, one at a time."""


def grow(sides: Sides, runs: int, asks: dict[float, Ask]) -> Report:
    """Draw each several times in a row, a first one to warm up; fit a straight line.

    Returns:
        Medians of time and peak memory for each value, and the lines.
    """
    medians: dict[str, list[float]] = {name: [] for name in sides}
    peaks: dict[str, list[float]] = {name: [] for name in sides}
    for ask in asks.values():
        drawn = both.in_turn(sides, list(anew(ask, runs + 1)))
        for name, all_ in drawn.items():
            medians[name].append(round(statistics.median(run.cpu for run in all_[1:]), 4))
            peaks[name].append(round(statistics.median(run.peak for run in all_[1:]), 1))
    values = list(asks)
    lines = {name: fit(values, found) for name, found in medians.items()}
    return {
        "values": values,
        "seconds": medians,
        "peak_mb": peaks,
        "line": lines,
        "each_of_stock": share(lines["ours"]["each"], lines["stock"]["each"]),
    }


def fit(values: Sequence[float], found: Sequence[float]) -> dict[str, float]:
    """A straight line through the points: seconds for each more, seconds before the first, R2."""
    line = statistics.linear_regression(values, found)
    r2 = statistics.correlation(values, found) ** 2
    return {
        "each": round(line.slope, 4), "before": round(line.intercept, 4), "r2": round(r2, 4),
    }  # fmt: skip


def measure(parts: Sequence[str], runs: int, *, short: bool) -> Iterator[Report]:
    """Run the parts that are asked for, and yield the report of each."""
    whole = SMALL if short else WHOLE
    few = min(runs, max(3, runs // 2))
    sides: Sides = {}
    try:
        if "start" in parts:
            report, sides = start(few, whole)
            yield {"start": report}
        elif parts:
            sides = both.make()
            for side in sides.values():
                side.start()
        if "prompt" in parts:
            yield {"prompt": prompt(sides, runs, whole)}
        for part, (what, asks) in GROWTH.items():
            if part in parts:
                some = dict(list(asks.items())[:2]) if short else asks
                yield {"growth": {what: grow(sides, few, some)}}
    finally:
        both.stop(sides)


PARTS = ("start", "prompt", *GROWTH)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int)
    parser.add_argument("--short", action="store_true", help="one run of small prompts")
    parser.add_argument("--only", choices=PARTS, action="append", help="keep the other parts")
    parser.add_argument("--output", type=Path, default=common.RESULTS / "cost.json")
    options = parser.parse_args()
    options.runs = options.runs or (1 if options.short else 9)
    parts = options.only or PARTS
    before = common.kept(options.output, ("start", "prompt", "growth")) if options.only else {}
    setup = {
        "comfyui": find_comfyui().version,
        "side": WHOLE.side,
        "steps": WHOLE.steps,
        "growth_side": SMALL.side,
        "growth_steps": SMALL.steps,
        "threads": 1,
        "runs": options.runs,
        "load_before": os.getloadavg()[0],
        "when": time.strftime("%Y-%m-%d"),
    }
    report = {"machine": common.machine("torch"), "setup": setup, **before}
    for found in measure(parts, options.runs, short=options.short):
        growth = {**report.get("growth", {}), **found.pop("growth", {})}
        report |= found | {"growth": growth}
        common.write(options.output, report)  # each part at once: it takes long


if __name__ == "__main__":
    main()
