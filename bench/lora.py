"""Time of applying a LoRA: our FluxHotswapLora against ComfyUI's LoraLoaderModelOnly.

    python bench/lora.py      # on the ComfyUI that `python3 dev.py test` sets up
    COMFYUI_DIR=/path/to/ComfyUI python bench/lora.py

Both nodes run in this process, on the CPU, on the same model and the same file in the loras folder,
in turn. `node` is the node itself: it reads the file and makes the patches. `weights` is the node
and the model's weights changed, which the core does when the model is loaded. The file is of rank
16, in diffusers' names, for every layer of the blocks. Ours also compares the file with its known
hash, checks its head, checks every shape and reports. Writes bench/results/lora.json.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

from common import RESULTS, ROOT, machine, seconds, summary, take_turns, use_comfyui, write

RANK = 16
FILE = "bench.safetensors"
SIZES: dict[str, dict[str, int]] = {
    "small FLUX": {"HIDDEN": 256},
    "FLUX's width, 1 and 2 blocks": {
        "HIDDEN": 3072,
        "DOUBLE_BLOCKS": 1,
        "SINGLE_BLOCKS": 2,
        "T5_WIDTH": 4096,
        "CLIP_WIDTH": 768,
    },
}
"""What differs from the small FLUX of the tests."""


def load(name: str, path: Path, folder: Path | None = None) -> Any:
    """A module from a file; a package if its folder is given."""
    inside = [str(folder)] if folder else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=inside)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{path} cannot be loaded")
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def pack_node() -> Any:
    """Our node, from the repository as a package, as ComfyUI loads it and tells it its place."""
    load("pack", ROOT / "__init__.py", ROOT)
    node = importlib.import_module("pack.nodes.lora").FluxHotswapLora
    prompt = {"1": {"class_type": node.__name__, "inputs": {"source": FILE}}}
    return type(node.__name__, (node,), {"hidden": SimpleNamespace(prompt=prompt, unique_id="1")})


def model_and_file(size: dict[str, int], path: Path) -> Any:
    """A MODEL of a size in bf16; the LoRA for it is written to the path."""
    import comfy.sd
    import torch
    from mini_flux import loras, shapes

    with (
        patch.multiple(shapes, **cast("Any", size)),
        patch.multiple(loras, H=size["HIDDEN"], RANK=RANK),
    ):
        loras.write(loras.diffusers(loras.blocks()), path)
        state = {
            name: torch.full(shape, 0.01, dtype=torch.bfloat16)
            for name, shape in shapes.flux(guidance=True).items()
        }
    model = comfy.sd.load_diffusion_model_state_dict(state)
    if model is None:
        raise RuntimeError("ComfyUI does not take the model")
    return model


def contestants(model: Any, ours: Any, core: Any) -> dict[str, Callable[[], float]]:
    """The two nodes, each alone and with the weights changed."""
    applied: dict[str, Callable[[], Any]] = {
        "ours": lambda: ours.execute(model=model, source=FILE, scale=1.0).result[0],
        # A node keeps the file that it read last: a new one reads it.
        "comfyui": lambda: core().load_lora_model_only(model, FILE, 1.0)[0],
    }

    def weights(apply: Callable[[], Any]) -> Callable[[], float]:
        def go() -> float:
            begun = time.perf_counter()
            patched = apply()
            patched.patch_model()
            taken = time.perf_counter() - begun
            patched.unpatch_model()
            return taken

        return go

    def node(apply: Callable[[], Any]) -> Callable[[], float]:
        return lambda: seconds(apply)

    made = {f"node, {name}": node(apply) for name, apply in applied.items()}
    return made | {f"weights, {name}": weights(apply) for name, apply in applied.items()}


def measure(size: dict[str, int], ours: Any, core: Any, runs: int) -> dict[str, Any]:
    """Time both on a model of a size."""
    import folder_paths

    with tempfile.TemporaryDirectory(prefix="bench-lora-") as folder:
        folder_paths.folder_names_and_paths["loras"] = ([folder], {".safetensors"})
        model = model_and_file(size, Path(folder, FILE))
        times = take_turns(contestants(model, ours, core), runs)
        found: dict[str, Any] = {"file_bytes": Path(folder, FILE).stat().st_size}
    for what in ("node", "weights"):
        pair = {name: times[f"{what}, {name}"] for name in ("ours", "comfyui")}
        ratio = statistics.median(pair["ours"]) / statistics.median(pair["comfyui"])
        found[what] = {name: summary(values) for name, values in pair.items()}
        found[what]["time_of_comfyui"] = round(ratio, 3)
    return found


def main() -> None:
    """Measure, print the table, write the JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--output", type=Path, default=RESULTS / "lora.json")
    options = parser.parse_args()
    use_comfyui(Path(os.environ.get("COMFYUI_DIR") or ROOT / ".runtime" / "ComfyUI").resolve())
    logging.disable(logging.INFO)
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)  # threads that wait for each other on a busy machine measure only it
    core: Any = importlib.import_module("nodes").LoraLoaderModelOnly
    load("small_models", ROOT / "tests" / "runtime" / "plugin" / "small_models.py").install()
    ours = pack_node()
    models: dict[str, Any] = {}
    for title, size in SIZES.items():
        found = models[title] = measure(size, ours, core, options.runs)
        for what in ("node", "weights"):
            ms = {name: found[what][name]["seconds_median"] * 1e3 for name in ("ours", "comfyui")}
            print(
                f"{title:30}{what:9}ours {ms['ours']:8.1f} ms, ComfyUI {ms['comfyui']:8.1f} ms"
                f"   ours takes {found[what]['time_of_comfyui']:.2f} of it"
            )
    version = importlib.import_module("comfyui_version").__version__
    setup = {
        "comfyui": version,
        "rank": RANK,
        "threads": 1,
        "runs": options.runs,
        "when": time.strftime("%F"),
    }
    write(options.output, {"machine": machine("torch"), "setup": setup, "models": models})


if __name__ == "__main__":
    main()
