"""How far int8 is from float32, and how much of a LoRA arrives in it.

    python bench/int8_error.py      # about ten minutes; 3 GB of disk, 8 GB of memory

Three tables: the output of whole models, single layers of FLUX's real shapes with outliers in their
input, and LoRAs of several sizes on such a layer. The peers are ComfyUI's own ways, its int8 among
them where it has one, and LoRAs merged into the weights. All run on the CPU, with the kernels that
comfy-kitchen has there. Writes bench/results/int8_error.json.
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
import gains  # noqa: E402
import peers  # noqa: E402
import torch  # noqa: E402
from runtime import inside  # noqa: E402
from runtime.models import small_models  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch import Tensor  # noqa: E402

LAYERS = {
    "double qkv": (9216, 3072),
    "double mlp.2": (3072, 12288),
    "single linear1": (21504, 3072),
    "single linear2": (3072, 15360),
}
TOKENS = 512
RMS = (1e-5, 1e-4, 1e-3, 3e-3, 1e-2)
RANKS = (4, 16, 128)
FP8 = peers.FP8
HOSTED = "engine fp8, the hosted model's"


def distance(made: Tensor, wanted: Tensor) -> float:
    """Return the relative error of a tensor."""
    return float((made.float() - wanted).norm() / wanted.norm())


# --- whole models ---


def inputs(context: int, pooled: int) -> tuple[Tensor, ...]:
    """Return latent, time, text, pooled text and guidance; the text has a loud channel.

    All hold values of bf16, so that computing in bf16 begins with the same.
    """
    generator = torch.Generator().manual_seed(5)
    latent = torch.randn(1, 16, 32, 32, generator=generator)
    text = torch.randn(1, 64, context, generator=generator) * 0.5
    text[:, :, 3] *= 20
    vector = torch.randn(1, pooled, generator=generator)
    given = (latent, torch.tensor([0.6875]), text, vector, torch.tensor([3.5]))
    return tuple(value.bfloat16().float() for value in given)


def models(path: Path) -> dict[str, Callable[[], Any]]:
    """Return the loaders of every way to run a checkpoint; float32 first."""

    def core(load: peers.Loader) -> Callable[[], Any]:
        return lambda: load(load_file(path))

    def ours(engine: str, *, modulation: bool = False) -> Any:
        os.environ[inside.pack("engine.trial").VARIABLE] = engine
        return inside.pack("engine.models").load_fast(path, modulation=modulation)[0]

    def hosted() -> Any:
        load = inside.pack("engine.models").load
        os.environ[inside.pack("engine.trial").VARIABLE] = "fp8"
        return load(path, "dev", go_fast=True, modulation="bf16")[0]

    ways = {
        "float32": core(peers.core(dtype=torch.float32)),
        "ours": lambda: ours("int8"),
        "ours, modulation in int8": lambda: ours("int8", modulation=True),
        "ours, storage": lambda: ours("storage"),
        "bf16": core(peers.core(dtype=torch.bfloat16)),
        "fp8_e4m3fn_fast": core(peers.core(dtype=FP8, fp8_optimizations=True)),
        "fp8_e4m3fn": core(peers.core(dtype=FP8)),
        "scaled fp8": core(peers.scaled_fp8),
        HOSTED: hosted,
    }
    return ways | ({"ComfyUI's int8": core(peers.core_int8)} if peers.core_has_int8() else {})


def output_errors(path: Path, given: tuple[Tensor, ...]) -> dict[str, dict[str, float]]:
    """Return the relative error of a model's output in every way, by what it computes in."""
    import comfy.model_management

    found: dict[str, dict[str, float]] = {"float32": {}, "bf16": {}}
    wanted: Tensor | None = None
    for name, load in models(path).items():
        patcher = load()
        comfy.model_management.load_models_gpu([patcher])
        network = patcher.model.diffusion_model
        options = patcher.model_options["transformer_options"]  # engine fp8 replaces blocks
        for compute, errors in found.items():
            dtype = torch.bfloat16 if compute == "bf16" else torch.float32
            if wanted is not None and name == "float32":
                continue
            if name == HOSTED and dtype != torch.bfloat16:  # it computes in nothing else
                continue
            with torch.inference_mode():
                latent, time, text, vector, guidance = given
                latent, text, vector = (value.to(dtype) for value in (latent, text, vector))
                given_to = {"guidance": guidance, "transformer_options": options}
                made = network(latent, time, text, vector, **given_to).float()
            if wanted is None:
                wanted = made
            else:
                errors[name] = round(distance(made, wanted), 5)
        del patcher, network
        comfy.model_management.unload_all_models()
    return found


# --- single layers ---


def activations(width: int) -> Tensor:
    """Return [TOKENS,width] as FLUX's are: some loud channels, some loud tokens."""
    generator = torch.Generator().manual_seed(2)
    made = torch.randn(TOKENS, width, generator=generator)
    made[:, ::997] *= 60
    made[::61] *= 15
    return made


def weight(height: int, width: int) -> Tensor:
    """Return [height,width] with some loud rows, as a bf16 file holds them."""
    generator = torch.Generator().manual_seed(3)
    made = torch.randn(height, width, generator=generator) * 0.02
    made[::401] *= 10
    return made.to(torch.bfloat16).float()


def by_tensor(values: Tensor, scale: Tensor | float) -> Tensor:
    """Round to e4m3 with one scale."""
    return (values / scale).clamp(-peers.FP8_MAX, peers.FP8_MAX).to(FP8).float() * scale


def layer_errors(height: int, width: int) -> dict[str, float]:
    """Return the relative error of one layer's output, in float32."""
    int8, multiply = inside.pack("ops.int8"), inside.pack("engine.trial").any_matmul()
    tokens, matrix = activations(width), weight(height, width)
    group, wanted = int8.group_of(width), tokens @ matrix.T
    values, scale = int8.quantise(matrix, group)
    theirs = peers.by_kitchen(matrix.to(torch.bfloat16))
    one = by_tensor(matrix, matrix.abs().max() / peers.FP8_MAX)
    made = {
        "ours": multiply(tokens, values, scale, None, group),
        "ours, storage": int8.multiply_stored(tokens, values, scale, None, group),
        "quantised by comfy-kitchen in bf16": multiply(tokens, *theirs, None, group),
        "e4m3, a scale for each tensor": by_tensor(tokens, tokens.abs().max() / peers.FP8_MAX)
        @ one.T,
        "the same, stored only": tokens @ one.T,
        HOSTED: hosted_layer(tokens, matrix),
        "fp8_e4m3fn_fast's arithmetic": by_tensor(tokens, 1.0) @ by_tensor(matrix, 1.0).T,
    }
    return {name: round(distance(output, wanted), 5) for name, output in made.items()}


def hosted_layer(tokens: Tensor, matrix: Tensor) -> Tensor:
    """Multiply as engine fp8 does, with the scale that these tokens want."""
    product, fp8 = inside.pack("ops.hosted.linear"), inside.pack("ops.hosted.quantise")
    scale = fp8.scale_for(tokens.abs().amax(), fp8.E5M2_MAX)
    held = fp8.quantise_weight(matrix.bfloat16())
    return product.linear(product.by_float32, tokens.bfloat16(), held, None, scale)


def show(report: dict[str, Any]) -> None:
    """Print the tables, ours as a share of the peer's."""
    for title in ("models", "layers"):
        for what, errors in report[title].items():
            print(what)
            for name, value in errors.items():
                share = "" if not value else f"   ours is {errors['ours'] / value:.2f} of it"
                print(f"  {name:36}{value:9.5f}{share}")
    for row in report["loras"]:
        print(f"LoRA of {row[gains.SIZE]:g}, rank {row['rank']}")
        for name, value in row.items():
            if isinstance(value, dict):
                print(f"  {name:52}gain {value['gain']:7.4f}   noise {value['noise']:9.3f}")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=common.RESULTS / "int8_error.json")
    options = parser.parse_args()
    os.environ["FLUX_HOTSWAP_INT8_CACHE"] = "0"  # what is kept is the same, and takes disk
    with tempfile.TemporaryDirectory(prefix="bench-int8-") as scratch:
        folder = Path(scratch)
        for name in ("diffusion_models", "loras", "checkpoints"):
            (folder / name).mkdir()
        inside.start("--cpu", "--supports-fp8-compute", models=folder)
        small = folder / "diffusion_models" / "small.safetensors"
        small.symlink_to(small_models() / "diffusion_models" / "flux1-dev.safetensors")
        wide = checkpoints.write(folder / "diffusion_models" / "wide.safetensors", 1, 1)
        sizes = {
            "the small FLUX": (small, inputs(64, 32)),
            "FLUX's widths, 1 + 1 blocks": (
                wide, inputs(checkpoints.CONTEXT, checkpoints.POOLED)
            ),
        }  # fmt: skip
        whole = {
            f"{name}, computed in {compute}": errors
            for name, (path, given) in sizes.items()
            for compute, errors in output_errors(path, given).items()
        }
        import comfyui_version

        matmul = inside.pack("engine.trial").any_matmul()
        layer = gains.Layer(3072, 3072, TOKENS, torch.device("cpu"), matmul)
        report = {
            "machine": common.machine("torch", "comfy-kitchen")
            | {"ComfyUI": comfyui_version.__version__},
            "models": whole,
            "layers": {name: layer_errors(*shape) for name, shape in LAYERS.items()},
            "loras": gains.gains(layer, RMS, RANKS),
        }
    show(report)
    common.write(options.output, report)


if __name__ == "__main__":
    main()
