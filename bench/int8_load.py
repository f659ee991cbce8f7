"""Time and memory of loading FLUX in 8 bit: ours, and ComfyUI's UNETLoader in each of its ways.

    python bench/int8_load.py      # about 5 minutes; 6 GB of disk, 8 GB of memory; Linux

A checkpoint of FLUX's real widths with two blocks of each kind is loaded by a fresh process every
time. The files are in the system's cache, as they are after the first start. "Ready" is until the
weights can be used: every page of them was read. Memory is what the system counts at the peak,
mapped files included, beyond what the process had before. Writes bench/results/int8_load.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

sys.path[:0] = [str(common.ROOT / "tests"), str(Path(__file__).parent)]

import checkpoints  # noqa: E402 - after the path

DOUBLE = SINGLE = 2
SOURCE, READY = "flux.safetensors", "flux-e4m3.safetensors"
KEPT = "flux_hotswap_int8"

WAYS = {
    "ours, first time": SOURCE,
    "ours, from then on": SOURCE,
    "ours, nothing kept": SOURCE,
    "UNETLoader, default": SOURCE,
    "UNETLoader, fp8_e4m3fn": SOURCE,
    "UNETLoader, fp8_e4m3fn_fast": SOURCE,
    "UNETLoader, fp8_e4m3fn, file in e4m3": READY,
}
"""What is loaded, and from which file."""


def memory(what: str) -> float:
    """Return what the system says of this process in MB: VmRSS is now, VmHWM the most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{what}:"))


def load(way: str, path: Path) -> Any:
    """Load a model in one of the ways."""
    import comfy.sd
    import torch

    if way.startswith("ours"):
        return inside_pack("engine.models").load_fast(path, modulation=False)[0]
    options: dict[str, Any] = {}
    if "fp8" in way:
        options["dtype"] = torch.float8_e4m3fn
    if "fast" in way:
        options["fp8_optimizations"] = True
    return comfy.sd.load_diffusion_model(str(path), model_options=options)


def inside_pack(name: str) -> Any:
    """Return a module of this pack."""
    from runtime import inside

    return inside.pack(name)


def work(way: str, models: Path) -> None:
    """Load once and print what it took, as JSON."""
    import torch
    from runtime import inside

    inside.start("--cpu", models=models)
    import comfy.sd  # noqa: F401 - part of what an idle ComfyUI has

    for name in ("engine.models", "engine.checkpoint", "engine.int8_linear", "engine.kept"):
        inside_pack(name)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the most so far is now
    begun = time.perf_counter()
    with torch.inference_mode():
        patcher = load(way, models / "diffusion_models" / WAYS[way])
    loaded = time.perf_counter() - begun
    for tensor in patcher.model.state_dict().values():
        tensor.reshape(-1).view(torch.uint8)[::4096].sum()
    ready = time.perf_counter() - begun
    size = sum(t.nbytes for t in patcher.model.state_dict().values()) / 2**20
    found = {"load": loaded, "ready": ready, "peak": memory("VmHWM") - before, "model": size}
    print(json.dumps(found))


def measure(way: str, models: Path) -> dict[str, float]:
    """Load in a fresh process."""
    if way == "ours, first time":
        shutil.rmtree(models / "diffusion_models" / KEPT, ignore_errors=True)
    environment = common.environment()
    if way == "ours, nothing kept":
        environment["FLUX_HOTSWAP_INT8_CACHE"] = "0"
    command = [sys.executable, __file__, "--work", way, "--models", str(models)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def make_files(models: Path) -> None:
    """Write the checkpoint in bf16, and in e4m3 without scales, as it is published by others."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = models / "diffusion_models"
    for name in ("diffusion_models", "loras", "checkpoints"):
        (models / name).mkdir()
    state = load_file(checkpoints.write(folder / SOURCE, DOUBLE, SINGLE))
    save_file({name: t.to(torch.float8_e4m3fn) for name, t in state.items()}, folder / READY)


def compare(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Return medians, and ours as a share of the peer's."""
    medians = {
        way: {key: round(statistics.median(run[key] for run in all_), 3) for key in all_[0]}
        for way, all_ in runs.items()
    }
    warm, cold = medians["ours, from then on"], medians["ours, first time"]
    for way, found in medians.items():
        if not way.startswith("ours"):
            found["our ready, from then on"] = round(warm["ready"] / found["ready"], 3)
            found["our ready, first time"] = round(cold["ready"] / found["ready"], 3)
            found["our peak, first time"] = round(cold["peak"] / found["peak"], 3)
    return medians


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--output", type=Path, default=common.RESULTS / "int8_load.json")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--models", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.models)
        return
    with tempfile.TemporaryDirectory(prefix="bench-int8-") as scratch:
        models = Path(scratch)
        make_files(models)
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(options.runs + 1):
            for way in WAYS:
                runs[way].append(measure(way, models))
        runs = {way: found[1:] for way, found in runs.items()}  # the first warms up
        largest = checkpoints.WIDTH * 7 * checkpoints.WIDTH * 2 / 2**20
    medians = compare(runs)
    for way, found in medians.items():
        print(
            f"{way:40}load {found['load']:7.2f} s   ready {found['ready']:7.2f} s"
            f"   peak {found['peak']:7.0f} MB   model {found['model']:6.0f} MB"
        )
        for key, share in found.items():
            if key.startswith("our"):
                print(f"{'':40}{key}: {share:.2f} of it")
    setup = {"double": DOUBLE, "single": SINGLE, "runs": options.runs, "largest_tensor_mb": largest}
    report = {"machine": common.machine("torch", "safetensors"), "setup": setup}
    common.write(options.output, report | {"medians": medians, "runs": runs})


if __name__ == "__main__":
    main()
