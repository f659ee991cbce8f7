"""How far 8 bit is from float32, and how much of a LoRA arrives in it.

    python bench/int8_error.py      # a few minutes; 3 GB of disk, 8 GB of memory

Three tables: the output of whole models, single layers of FLUX's real shapes with outliers in their
input, and LoRAs of several sizes on such a layer. The peers are ComfyUI's `fp8_e4m3fn_fast`, fp8
with one scale, and LoRAs merged into int8 weights in two ways. All on the CPU, with comfy-kitchen's
plain kernels. Writes bench/results/int8_error.json.
"""

from __future__ import annotations

import argparse
import os
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
from runtime.models import small_models  # noqa: E402
from torch import Tensor  # noqa: E402

LAYERS = {
    "double qkv": (9216, 3072),
    "double mlp.2": (3072, 12288),
    "single linear1": (21504, 3072),
    "single linear2": (3072, 15360),
}
TOKENS = 512
RMS = (1e-5, 1e-4, 1e-3, 1e-2)
RANKS = (4, 16, 128)
FP8 = torch.float8_e4m3fn


def distance(made: Tensor, wanted: Tensor) -> float:
    """Return the relative error of a tensor."""
    return float((made - wanted).norm() / wanted.norm())


# --- whole models ---


def inputs(context: int, pooled: int) -> tuple[Tensor, ...]:
    """Return latent, time, text, pooled text and guidance; the text has a loud channel."""
    generator = torch.Generator().manual_seed(5)
    latent = torch.randn(1, 16, 32, 32, generator=generator)
    text = torch.randn(1, 64, context, generator=generator) * 0.5
    text[:, :, 3] *= 20
    return (
        latent, torch.tensor([0.7]), text, torch.randn(1, pooled, generator=generator),
        torch.tensor([3.5]),
    )  # fmt: skip


def models(path: Path) -> dict[str, Callable[[], Any]]:
    """Return the loaders of every way to run a checkpoint; float32 first."""
    import comfy.sd

    loader, variable = inside.pack("engine.models"), inside.pack("engine.trial").VARIABLE

    def core(**options: Any) -> Any:
        return comfy.sd.load_diffusion_model(str(path), model_options=options)

    def ours(modulation: bool, engine: str) -> Any:
        os.environ[variable] = engine
        return loader.load_fast(path, modulation=modulation)[0]

    return {
        "float32": lambda: core(dtype=torch.float32),
        "ours": lambda: ours(False, "int8"),
        "ours, modulation in int8": lambda: ours(True, "int8"),
        "ours, storage": lambda: ours(False, "storage"),
        "fp8_e4m3fn_fast": lambda: core(dtype=FP8, fp8_optimizations=True),
        "fp8_e4m3fn": lambda: core(dtype=FP8),
    }


def output_errors(path: Path, given: tuple[Tensor, ...]) -> dict[str, float]:
    """Return the relative error of a model's output in every way to run it."""
    import comfy.model_management

    def output(load: Callable[[], Any]) -> Tensor:
        patcher = load()
        comfy.model_management.load_models_gpu([patcher])
        with torch.inference_mode():
            return patcher.model.diffusion_model(*given).float()

    ways = models(path)
    wanted = output(ways["float32"])
    return {name: round(distance(output(load), wanted), 5) for name, load in ways.items()}


# --- single layers ---


def activations(width: int) -> Tensor:
    """Return [TOKENS,width] as FLUX's are: some loud channels, some loud tokens."""
    generator = torch.Generator().manual_seed(2)
    made = torch.randn(TOKENS, width, generator=generator)
    made[:, ::997] *= 60
    made[::61] *= 15
    return made


def weight(height: int, width: int) -> Tensor:
    """Return [height,width] with some loud rows."""
    generator = torch.Generator().manual_seed(3)
    made = torch.randn(height, width, generator=generator) * 0.02
    made[::401] *= 10
    return made


def by_tensor(values: Tensor, scale: Tensor | float) -> Tensor:
    """Round to e4m3 with one scale."""
    return (values / scale).clamp(-448, 448).to(FP8).float() * scale


def layer_errors(height: int, width: int) -> dict[str, float]:
    """Return the relative error of one layer's output."""
    int8, multiply = inside.pack("ops.int8"), inside.pack("engine.trial").any_matmul()
    tokens, matrix = activations(width), weight(height, width)
    wanted = tokens @ matrix.T
    turned = int8.quantise(matrix, int8.LARGEST_GROUP)
    plain = int8.quantise(matrix, 1)
    scaled = (
        by_tensor(tokens, tokens.abs().max() / 448) @ by_tensor(matrix, matrix.abs().max() / 448).T
    )
    core = by_tensor(tokens, 1.0) @ by_tensor(matrix, 1.0).T
    ways = {
        "ours": multiply(tokens, *turned, None, int8.LARGEST_GROUP),
        "ours, storage": int8.multiply_stored(tokens, *turned, None, int8.LARGEST_GROUP),
        "int8 without turning": multiply(tokens, *plain, None, 1),
        "fp8, one scale for a tensor": scaled,
        "fp8_e4m3fn_fast's arithmetic": core,
    }
    return {name: round(distance(made, wanted), 5) for name, made in ways.items()}


# --- LoRAs ---


def lora(height: int, width: int, rank: int, rms: float) -> tuple[Tensor, Tensor]:
    """Return up and down whose product has `rms` of the weight's."""
    generator = torch.Generator().manual_seed(1000 + rank)
    up = torch.randn(height, rank, generator=generator)
    down = torch.randn(rank, width, generator=generator)
    return up * (rms * 0.02 / (up @ down).std()), down


def gains(height: int, width: int) -> list[dict[str, Any]]:
    """Return for LoRAs of several sizes how much of each arrives, and the noise it brings."""
    int8, beside = inside.pack("ops.int8"), inside.pack("ops.lora.beside")
    group, multiply = int8.LARGEST_GROUP, inside.pack("engine.trial").any_matmul()
    generator = torch.Generator().manual_seed(4)
    tokens = torch.randn(TOKENS, width, generator=generator)
    matrix = torch.randn(height, width, generator=generator) * 0.02
    stored = int8.quantise(matrix, group)
    real = int8.dequantise(*stored, group)

    def output(steps: tuple[Tensor, Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
        return multiply(tokens.to(dtype), *steps, None, group)

    def ours(up: Tensor, down: Tensor, dtype: torch.dtype) -> Tensor:
        factors = beside.Factors(up, down).to(tokens.device, dtype)
        return beside.add_change(output(stored, dtype), tokens.to(dtype), factors).float()

    def evenly(changed: Tensor) -> Tensor:
        return output((int8.quantise_evenly(changed, stored[1], group, 7), stored[1]))

    found = []
    for rms in RMS:
        for rank in RANKS:
            up, down = lora(height, width, rank, rms)
            change = up @ down
            half = output(stored, torch.bfloat16).float()
            whole = output(stored)
            ways = {
                "ours: beside the weight, float32": (ours(up, down, torch.float32), whole),
                "ours: beside the weight, bf16": (ours(up, down, torch.bfloat16), half),
                "merged before quantising": (output(int8.quantise(matrix + change, group)), whole),
                "merged into int8, by chance": (evenly(real + change), whole),
            }
            wanted = tokens @ change.T
            row: dict[str, Any] = {"rms of the weight's": rms, "rank": rank}
            for name, (made, before) in ways.items():
                moved = made - before
                gain = float((moved * wanted).sum() / (wanted * wanted).sum())
                noise = float((moved - gain * wanted).norm() / wanted.norm())
                row[name] = {"gain": round(gain, 4), "noise": round(noise, 3)}
            found.append(row)
    return found


def show(report: dict[str, Any]) -> None:
    """Print the tables, ours as a share of the peer's."""
    for title in ("models", "layers"):
        for what, errors in report[title].items():
            print(what)
            for name, value in errors.items():
                share = "" if not value else f"   ours is {errors['ours'] / value:.2f} of it"
                print(f"  {name:32}{value:9.5f}{share}")
    for row in report["loras"]:
        print(f"LoRA of {row['rms of the weight' + chr(39) + 's']:g}, rank {row['rank']}")
        for name, value in row.items():
            if isinstance(value, dict):
                print(f"  {name:52}gain {value['gain']:7.4f}   noise {value['noise']:9.3f}")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=common.RESULTS / "int8_error.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-int8-") as scratch:
        folder = Path(scratch)
        for name in ("diffusion_models", "loras", "checkpoints"):
            (folder / name).mkdir()
        inside.start("--cpu", models=folder)
        small = folder / "diffusion_models" / "small.safetensors"
        small.symlink_to(small_models() / "diffusion_models" / "flux1-dev.safetensors")
        wide = checkpoints.write(folder / "diffusion_models" / "wide.safetensors", 1, 1)
        report = {
            "machine": common.machine("torch"),
            "models": {
                "the small FLUX": output_errors(small, inputs(64, 32)),
                "FLUX's widths, 1 + 1 blocks": output_errors(
                    wide, inputs(checkpoints.CONTEXT, checkpoints.POOLED)
                ),
            },
            "layers": {name: layer_errors(*shape) for name, shape in LAYERS.items()},
            "loras": gains(3072, 3072),
        }
    show(report)
    common.write(options.output, report)


if __name__ == "__main__":
    main()
