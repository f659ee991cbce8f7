"""What the benchmarks share: the machine they ran on, turns, medians, the file of results."""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "RESULTS",
    "ROOT",
    "SMALL_PICTURE",
    "kept",
    "machine",
    "seconds",
    "summary",
    "take_turns",
    "use_comfyui",
    "write",
]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"

SMALL_PICTURE: dict[str, Any] = {
    "aspect_ratio": "custom",
    "width": 256,
    "height": 256,
    "num_inference_steps": 4,
    "go_fast": False,
    "disable_safety_checker": True,
}
"""Fields of a picture that the small FLUX draws in a second on one core."""


def machine(*packages: str) -> dict[str, Any]:
    """Describe where the numbers come from.

    Args:
        packages: Whose versions matter.
    """
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def take_turns(contestants: Mapping[str, Callable[[], float]], runs: int) -> dict[str, list[float]]:
    """Let each run in turn, so that what slows the machine down slows all of them.

    Args:
        contestants: By name; each runs once when called and returns what it measured.
        runs: How often; one more round before them warms up and is dropped.
    """
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(runs + 1):
        for name, run in contestants.items():
            gc.collect()
            found[name].append(run())
    return {name: values[1:] for name, values in found.items()}


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def summary(values: Sequence[float], digits: int = 4) -> dict[str, Any]:
    """The median and the values of all runs, in seconds."""
    return {
        "seconds_median": round(statistics.median(values), digits),
        "seconds": [round(value, digits) for value in values],
    }


def write(path: Path, report: Mapping[str, Any]) -> None:
    """Write a file of results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")


def kept(path: Path, parts: Container[str]) -> dict[str, Any]:
    """These parts of a file of results, for a run that measures only some anew."""
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return {name: part for name, part in found.items() if name in parts}


def use_comfyui(comfyui: Path) -> None:
    """Make a ComfyUI's modules importable, on the CPU."""
    sys.path.insert(0, str(comfyui))
    sys.path.append(str(ROOT / "tests"))
    from runtime import rescue

    rescue.install()  # where torchvision cannot be imported
    arguments, sys.argv = sys.argv, [sys.argv[0], "--cpu"]
    importlib.import_module("comfy.options").enable_args_parsing()
    importlib.import_module("comfy.cli_args")
    sys.argv = arguments
    importlib.import_module("comfy.cli_args")
    sys.argv = arguments


def environment() -> dict[str, str]:
    """The environment of a process that is measured."""
    # torch's threads wait for each other by spinning, which on busy cores takes longer than the
    # work.
    return {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ
