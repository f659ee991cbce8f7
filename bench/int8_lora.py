"""Time to apply, change and remove a LoRA on a model in 8 bit: our node and LoraLoaderModelOnly.

    python bench/int8_lora.py      # about 2 minutes; 2 GB of disk, 6 GB of memory

From the call of the node until the model is ready to sample, on a checkpoint of FLUX's widths with
one block of each kind and a LoRA of rank 16 on every linear layer of the blocks. Ours is measured
with `go_fast_lora` as it is, `hosted`, where each strength that is new has to be computed, and on
`whole`. LoraLoaderModelOnly runs on ComfyUI's own fp8 model and on ours. Writes
bench/results/int8_lora.json.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common

sys.path[:0] = [str(common.ROOT / "tests"), str(Path(__file__).parent)]

import checkpoints  # noqa: E402 - after the path
import torch  # noqa: E402
from runtime import inside  # noqa: E402

RANK = 16
STEPS = ("apply", "change the strength", "remove")
WHOLE = "ours, whole"


class Contestant:
    """A model and a way to put a LoRA on it."""

    def __init__(self, model: Any, apply: Callable[[Any, float], Any]) -> None:
        self.model = model
        self.apply = apply
        self.running: Any = None

    def become(self, strength: float) -> None:
        """Make the model ready to sample with the LoRA at a strength, 0 for without."""
        import comfy.model_management

        made = self.apply(self.model, strength) if strength else self.model
        comfy.model_management.load_models_gpu([made])
        self.running = made

    def once(self) -> dict[str, float]:
        """Apply, change and remove; the seconds of each."""
        import comfy.model_management

        self.become(0)
        times = {
            step: common.seconds(lambda strength=strength: self.become(strength))
            for step, strength in zip(STEPS, (1.0, 0.5, 0), strict=True)
        }
        self.running = None
        comfy.model_management.unload_all_models()
        return times


def contestants(path: Path, lora: Path) -> dict[str, Contestant]:
    """Return ours in both ways, ComfyUI's, and ComfyUI's node on our model."""
    import comfy.sd
    import comfy.utils

    def core(model: Any, strength: float) -> Any:
        state = comfy.utils.load_torch_file(str(lora), safe_load=True)
        return comfy.sd.load_lora_for_models(model, None, state, strength, 0)[0]

    def whole(model: Any, strength: float) -> Any:
        return inside.pack("engine.loras").apply(lora, model, None, strength)[0]

    def hosted(model: Any, strength: float) -> Any:
        # What arrives is kept by file and strength: another name, and it is computed anew.
        name = f"file {next(names)}"
        return inside.pack("engine.loras").apply(lora, model, None, strength, as_hosted=name)[0]

    def fast() -> Any:
        return inside.pack("engine.models").load_fast(path, modulation=True)[0]

    names = itertools.count()
    options = {"dtype": torch.float8_e4m3fn, "fp8_optimizations": True}
    return {
        "ours": Contestant(fast(), hosted),
        WHOLE: Contestant(fast(), whole),
        "LoraLoaderModelOnly": Contestant(
            comfy.sd.load_diffusion_model(str(path), model_options=options), core
        ),
        "LoraLoaderModelOnly on our model": Contestant(fast(), core),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--output", type=Path, default=common.RESULTS / "int8_lora.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-int8-") as scratch, torch.inference_mode():
        models = Path(scratch)
        for name in ("diffusion_models", "loras", "checkpoints"):
            (models / name).mkdir()
        inside.start("--cpu", models=models)
        path = checkpoints.write(models / "diffusion_models" / "flux.safetensors", 1, 1)
        lora = models / "loras" / "lora.safetensors"
        checkpoints.write_lora(lora, 1, 1, rank=RANK)
        entries = contestants(path, lora)
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in entries}
        for _ in range(options.runs + 1):
            for name, entry in entries.items():
                runs[name].append(entry.once())
    steps: dict[str, Any] = {}
    for step in STEPS:
        found = {name: common.summary([r[step] for r in all_[1:]]) for name, all_ in runs.items()}
        for name, values in found.items():
            values["time_of_ours"] = round(
                found["ours"]["seconds_median"] / values["seconds_median"], 3
            )
            print(
                f"{step:22}{name:36}{values['seconds_median']:8.3f} s"
                f"   ours takes {values['time_of_ours']:.3f} of it"
            )
        steps[step] = found
    setup = {"double": 1, "single": 1, "rank": RANK, "runs": options.runs}
    common.write(options.output, {"machine": common.machine("torch"), "setup": setup} | steps)


if __name__ == "__main__":
    main()
