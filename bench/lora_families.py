"""LoRA files of every family and kind: how exactly they are applied, here and by ComfyUI's loader.

    python bench/lora_families.py      # about two minutes
    COMFYUI_DIR=/path/to/ComfyUI python bench/lora_families.py

The small FLUX of the tests, changes of 5 % of a weight. Each file goes through the LoRA node's own
function and through ComfyUI's load_lora_for_models, on the same model in bf16; what has become of
the weights is compared with the formula, written out in float32. What is left of a sound file then
is the rounding to bf16. With go_fast: how much of the change arrives in one layer in int8. Files of
other models, and broken ones: the words of the refusal, and how many weights ComfyUI's loader
changes with them. Writes bench/results/lora_families.json.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common

sys.path[:0] = [str(common.ROOT / "tests"), str(Path(__file__).parent)]

import lora_files  # noqa: E402 - after the path
import torch  # noqa: E402
from mini_flux import loras  # noqa: E402
from runtime import inside  # noqa: E402
from runtime.lora_states import DEV, State, drawn  # noqa: E402
from runtime.models import small_models  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

TOKENS = 256
FILE = "some.safetensors"

Apply = Callable[[Path, Any], Any]
"""Takes a file and a MODEL; returns the MODEL with it."""


def ours(path: Path, model: Any) -> Any:
    """Apply as the LoRA node does."""
    return inside.pack("engine.loras").apply(path, model, None, 1.0)[0]


def core(path: Path, model: Any) -> Any:
    """Apply as ComfyUI's own loader does."""
    import comfy.sd
    import comfy.utils

    state = comfy.utils.load_torch_file(str(path), safe_load=True)
    return comfy.sd.load_lora_for_models(model, None, state, 1.0, 0)[0]


@dataclass(frozen=True)
class Bench:
    """What is measured on.

    Attributes:
        model: the small FLUX in bf16.
        fast: the same with go_fast.
        weights: in float32, by their published names.
        file: where a file is written.
    """

    model: Any
    fast: Any
    weights: State
    file: Path

    def row(self, file: lora_files.File) -> dict[str, Any]:
        """Return what became of a file that can be applied."""
        loras.write(file.state, self.file, dict(file.metadata) or None)
        row: dict[str, Any] = {}
        for name, apply in (("ours", ours), ("peer", core)):
            changes = self._changes(apply(self.file, self.model))
            row[name] = {
                "weights": len(changes),
                "error": round(error(changes, file.changes), 5),
            }
        gain, noise = self._layer(file)
        return row | {
            "of": len(file.changes),
            "keys": len(file.state),
            "int8": {"gain": round(gain, 4), "noise": round(noise, 4)},
        }

    def refusal(self, file: lora_files.File) -> dict[str, Any]:
        """Return why a file is refused, and what the core does with it."""
        loras.write(file.state, self.file)
        words = None
        try:
            ours(self.file, self.model)
        except inside.pack("errors").LoraError as error:
            words = str(error)
        return {"words": words, "peer_weights": len(self._changes(core(self.file, self.model)))}

    def _changes(self, made: Any) -> State:
        """Return what has changed in a model's weights, by their published names."""
        import comfy.model_management

        comfy.model_management.load_models_gpu([made])
        changes = {
            name: value.detach().float() - self.weights[name]
            for name, value in made.model.diffusion_model.named_parameters()
        }
        comfy.model_management.unload_all_models()
        return {name: change for name, change in changes.items() if bool((change != 0).any())}

    def _layer(self, file: lora_files.File) -> tuple[float, float]:
        """Return how much of a change arrives in what a layer in int8 makes, and the noise."""
        import comfy.model_management

        layer = self.fast.model.diffusion_model.get_submodule(file.layer)
        change = file.changes[f"{file.layer}.weight"]
        tokens = drawn(TOKENS, change.shape[1], size=1.0)
        comfy.model_management.load_models_gpu([self.fast])
        before = layer(tokens).float()
        with_it = ours(self.file, self.fast)  # which takes the LoRA with it when it goes
        comfy.model_management.load_models_gpu([with_it])
        made, wanted = layer(tokens).float() - before, tokens @ change.T
        comfy.model_management.unload_all_models()
        gain = float((made * wanted).sum() / wanted.square().sum())
        return gain, float((made - gain * wanted).norm() / wanted.norm())


def error(found: State, wanted: State) -> float:
    """Return the relative error of all changes together."""
    zero, wrong, whole = torch.zeros(()), 0.0, 0.0
    for name in found.keys() | wanted.keys():
        change = wanted.get(name, zero)
        wrong += float((found.get(name, zero) - change).double().square().sum())
        whole += float(change.double().square().sum())
    return (wrong / whole) ** 0.5


def start(folder: Path) -> Bench:
    """Load the models."""
    for name in ("diffusion_models", "loras", "checkpoints"):
        (folder / name).mkdir()
    inside.start("--cpu", models=folder)
    import comfy.sd

    path = folder / "diffusion_models" / DEV
    path.symlink_to(small_models() / "diffusion_models" / DEV)
    os.environ[inside.pack("engine.trial").VARIABLE] = "int8"
    weights = {name: value.to(torch.bfloat16).float() for name, value in load_file(path).items()}
    return Bench(
        model=comfy.sd.load_diffusion_model(str(path), model_options={"dtype": torch.bfloat16}),
        fast=inside.pack("engine.models").load_fast(path, modulation=False)[0],
        weights=weights,
        file=folder / "loras" / FILE,
    )


def show(name: str, row: Mapping[str, Any]) -> None:
    """Print what became of one file."""
    mine, peer = row["ours"], row["peer"]
    print(
        f"{name:36}{mine['weights']:4} of {row['of']} weights, error {mine['error']:.4f}"
        f"   ComfyUI {peer['weights']:4}, error {peer['error']:.4f}"
        f"   int8: gain {row['int8']['gain']:.3f}, noise {row['int8']['noise']:.3f}"
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=common.RESULTS / "lora_families.json")
    options = parser.parse_args()
    os.environ["FLUX_HOTSWAP_INT8_CACHE"] = "0"
    report: dict[str, Any] = {"families": {}, "kinds": {}, "refused": {}}
    with tempfile.TemporaryDirectory(prefix="bench-loras-") as scratch, torch.inference_mode():
        bench = start(Path(scratch))
        logging.disable(logging.ERROR)  # of the core, about names that it does not know
        for title, files in (
            ("families", lora_files.families(bench.weights)),
            ("kinds", lora_files.kinds(bench.weights)),
        ):
            for name, file in files.items():
                report[title][name] = bench.row(file)
                show(name, report[title][name])
        for name, file in lora_files.refused().items():
            found = report["refused"][name] = bench.refusal(file)
            print(f"{name:36}{found['words']}   ComfyUI changes {found['peer_weights']} weights")
        import comfyui_version
    machine = common.machine("torch") | {"ComfyUI": comfyui_version.__version__}
    setup = {"size_of_a_change": lora_files.SIZE, "route": "bf16"}
    common.write(options.output, {"machine": machine, "setup": setup, **report})


if __name__ == "__main__":
    main()
