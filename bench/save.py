"""Time and bytes of saving four 1024x1024 pictures: ours, plain Pillow, and ComfyUI's SaveImage.

    python bench/save.py                              # ours and Pillow
    COMFYUI_DIR=/path/to/ComfyUI python bench/save.py # and ComfyUI's own node (it writes png only)

All write the same pictures with the same graph inside to a temporary folder, one after the other in
every round; the table shows medians. Writes bench/results/save.json.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # last, so that ComfyUI's nodes.py is found before our nodes/

import numpy as np  # noqa: E402 - after the path
import PIL  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from ops import metadata  # noqa: E402
from ops.encode import FORMATS, Format  # noqa: E402
from ops.save import Place, save_batch  # noqa: E402

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
    options: dict[str, Any] = {} if fmt == "png" else {"quality": QUALITY, "optimize": True}

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
    sys.path.insert(0, str(comfyui))
    sys.path.append(str(ROOT / "tests"))
    from runtime import rescue

    rescue.install()  # where torchvision cannot be imported
    arguments, sys.argv = sys.argv, [sys.argv[0], "--cpu"]
    importlib.import_module("comfy.options").enable_args_parsing()
    nodes = importlib.import_module("nodes")
    sys.argv = arguments
    node = nodes.SaveImage()

    def save(images: torch.Tensor, folder: Path) -> None:
        node.output_dir = str(folder)
        node.save_images(images, "core", GRAPH["prompt"], None)

    return save


def measure(savers: dict[str, Saver], runs: int) -> dict[str, dict[str, Any]]:
    """Run every saver in turn `runs` times; return seconds and bytes of each."""
    images = pictures()
    seconds: dict[str, list[float]] = {name: [] for name in savers}
    sizes: dict[str, int] = {}
    for _ in range(runs + 1):
        for name, save in savers.items():
            folder = Path(tempfile.mkdtemp(prefix="bench-save-"))
            start = time.perf_counter()
            save(images, folder)
            seconds[name].append(time.perf_counter() - start)
            sizes[name] = sum(path.stat().st_size for path in folder.iterdir())
            shutil.rmtree(folder)
    return {
        name: {
            "seconds_median": round(statistics.median(times[1:]), 4),  # the first warms up
            "seconds": [round(value, 4) for value in times[1:]],
            "bytes": sizes[name],
        }
        for name, times in seconds.items()
    }


def machine() -> dict[str, Any]:
    """Describe where the numbers come from."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [x for x in io.StringIO(info.read_text()) if x.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pillow": PIL.__version__,
    }


def main() -> None:
    """Measure, print the table, write the JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--output", type=Path, default=ROOT / "bench" / "results" / "save.json")
    options = parser.parse_args()
    comfyui = os.environ.get("COMFYUI_DIR")
    core = comfyui_save_image(Path(comfyui)) if comfyui else None
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
    setup = {"pictures": PICTURES, "side": SIDE, "quality": QUALITY, "runs": options.runs}
    report = {"machine": machine(), "setup": setup, "formats": formats}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
