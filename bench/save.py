"""Time and bytes of saving four 1024x1024 pictures: ours, plain Pillow, and ComfyUI's SaveImage.

    python3 dev.py bench save      # ComfyUI's own node writes png only
    COMFYUI_DIR=/path/to/ComfyUI python3 dev.py bench save

All write the same pictures with the same graph inside to a temporary folder, in turns; the table
shows medians. Ours encodes as many at a time as there are cores, the others one after the other.
Writes bench/results/save.json.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import RESULTS, ROOT, machine, seconds, summary, take_turns, use_comfyui, write

sys.path.append(str(ROOT))  # last, so that ComfyUI's nodes.py is found before our nodes/

import numpy as np
import torch
from PIL import Image

from flux_hotswap.ops import metadata
from flux_hotswap.ops.encode import FORMATS, PNG_LEVEL, Format
from flux_hotswap.ops.save import Place, save_batch

PICTURES, SIDE, QUALITY = 4, 1024, 80
GRAPH: dict[str, Any] = {"prompt": {str(i): {"inputs": {"text": "x" * 99}} for i in range(40)}}
Saver = Callable[[torch.Tensor, Path], None]


def pictures() -> torch.Tensor:
    """Return [4,1024,1024,3] float32 0..1: detail on every scale, as a photograph has."""
    generator = torch.Generator().manual_seed(7)
    total = torch.zeros(PICTURES, 3, SIDE, SIDE)
    for octave in range(2, 11):
        noise = torch.randn(PICTURES, 3, 2**octave, 2**octave, generator=generator)
        total += torch.nn.functional.interpolate(noise, (SIDE, SIDE), mode="bilinear") * 0.5**octave
    return (0.5 + total).clamp(0, 1).movedim(1, -1).contiguous()


def ours(fmt: Format) -> Saver:
    """Return the saver of this pack."""

    def save(images: torch.Tensor, folder: Path) -> None:
        texts = metadata.pack(GRAPH)
        save_batch(images, fmt, QUALITY, texts=texts, place=Place(folder, "ours", 1, ""))

    return save


def plain_pillow(fmt: Format) -> Saver:
    """Return what a short script does: one picture after the other, same options."""
    options: dict[str, Any] = {"quality": QUALITY, "optimize": True}
    if fmt == "png":
        options = {"compress_level": PNG_LEVEL}

    def save(images: torch.Tensor, folder: Path) -> None:
        texts = metadata.pack(GRAPH)
        extra: dict[str, Any] = {"pnginfo": metadata.png_info(texts)}
        if fmt != "png":
            extra = {"exif": metadata.exif(texts)}
        for index, image in enumerate(images):
            array = np.clip(255.0 * image.numpy(), 0, 255).round().astype(np.uint8)
            Image.fromarray(array).save(folder / f"pillow_{index}.{fmt}", **options, **extra)

    return save


def comfyui_save_image(comfyui: Path) -> Saver:
    """Return ComfyUI's own SaveImage, from a ComfyUI folder."""
    use_comfyui(comfyui)
    nodes = importlib.import_module("nodes")
    node = nodes.SaveImage()

    def save(images: torch.Tensor, folder: Path) -> None:
        node.output_dir = str(folder)
        node.save_images(images, "core", GRAPH["prompt"], None)

    return save


def measure(savers: dict[str, Saver], runs: int) -> dict[str, dict[str, Any]]:
    """Run every saver in turn `runs` times; return seconds and bytes of each."""
    images = pictures()
    sizes: dict[str, int] = {}

    def timed(name: str, save: Saver) -> Callable[[], float]:
        def go() -> float:
            folder = Path(tempfile.mkdtemp(prefix="bench-save-"))
            taken = seconds(lambda: save(images, folder))
            sizes[name] = sum(path.stat().st_size for path in folder.iterdir())
            shutil.rmtree(folder)
            return taken

        return go

    times = take_turns({name: timed(name, save) for name, save in savers.items()}, runs)
    return {name: {**summary(values), "bytes": sizes[name]} for name, values in times.items()}


def main() -> None:
    """Measure, print the table, write the JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--output", type=Path, default=RESULTS / "save.json")
    options = parser.parse_args()
    comfyui = Path(os.environ.get("COMFYUI_DIR") or ROOT / ".runtime" / "ComfyUI").resolve()
    core = comfyui_save_image(comfyui) if comfyui.is_dir() else None
    formats: dict[str, Any] = {}
    for fmt in FORMATS:
        savers = {"ours": ours(fmt), "pillow": plain_pillow(fmt)}
        if core and fmt == "png":
            savers["comfyui_save_image"] = core
        formats[fmt] = measure(savers, options.runs)
        best = formats[fmt]["ours"]
        for name, result in formats[fmt].items():
            result["time_of_ours"] = round(best["seconds_median"] / result["seconds_median"], 3)
            print(
                f"{fmt:5}{name:20}{result['seconds_median']:8.3f} s{result['bytes']:12,} bytes"
                f"   ours takes {result['time_of_ours']:.2f} of it"
            )
    threads = min(PICTURES, os.cpu_count() or 1)
    setup = {
        "pictures": PICTURES,
        "side": SIDE,
        "quality": QUALITY,
        "threads": threads,
        "runs": options.runs,
    }
    report = {"machine": machine("torch", "pillow"), "setup": setup, "formats": formats}
    write(options.output, report)


if __name__ == "__main__":
    main()
