"""Time of one sampling step of a whole FLUX.1 dev: bf16, ComfyUI's fp8_e4m3fn_fast, and ours.

    python bench/gpu_step.py           # on a GPU with 40 GB; about 6 minutes on an H100
    python bench/gpu_step.py --small   # anywhere, to see that it works

The weights are random, the sizes are FLUX.1 dev's: 19 + 38 blocks, 1024x1024, 512 tokens of text.
Each model runs as it is and with its blocks compiled, without a LoRA and with one of rank 16 on
every linear layer of the blocks. A peer that fails is reported, not left out. It needs torch and a
ComfyUI: COMFYUI_DIR, or the one that `dev.py test` sets up. Writes bench/results/gpu_step.json.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common

sys.path[:0] = [str(common.ROOT / "tests"), str(Path(__file__).parent)]

import checkpoints  # noqa: E402 - after the path
import torch  # noqa: E402
from runtime import inside  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import Tensor  # noqa: E402

RANK = 16
FP8 = torch.float8_e4m3fn


@dataclass(frozen=True)
class Size:
    """What is measured.

    Attributes:
        double: number of double blocks.
        single: number of single blocks.
        width: of the model.
        side: of the picture, in pixels.
        text: tokens of text.
        steps: how many are timed.
        warm: how many run before.
    """

    double: int
    single: int
    width: int
    side: int
    text: int
    steps: int
    warm: int


FULL = Size(19, 38, checkpoints.WIDTH, 1024, 512, 12, 4)
SMALL = Size(2, 2, 256, 256, 64, 3, 1)

ARGUMENTS = {
    "cuda": ["--highvram"],
    "cpu": ["--cpu", "--supports-fp8-compute", "--use-pytorch-cross-attention"],
}
"""Of ComfyUI, by the kind of device."""

Loader = Callable[[dict[str, Tensor]], Any]


def core(**options: Any) -> Loader:
    """Return ComfyUI's own loader, with the options of one of its ways."""

    def load(state: dict[str, Tensor]) -> Any:
        import comfy.sd

        return comfy.sd.load_diffusion_model_state_dict(state, model_options=options)

    return load


def ours(state: dict[str, Tensor]) -> Any:
    """Quantise in memory and load as our loader does."""
    convert, layout = (inside.pack(f"ops.checkpoint.{name}") for name in ("convert", "layout"))
    int8 = inside.pack("ops.int8")
    targets = layout.targets({name: tuple(t.shape) for name, t in state.items()})
    for target in convert.quantised(targets, modulation=False):
        weight = state[target.name].float()
        values, scale = int8.quantise(weight, int8.group_of(weight.shape[1]))
        state[target.name], state[convert.scale_name(target.name)] = values, scale
    matmul = inside.pack("engine.trial").any_matmul()
    return inside.pack("engine.checkpoint").build(state, matmul, "random")


LOADERS: dict[str, Loader] = {
    "bf16": core(dtype=torch.bfloat16),
    "fp8_e4m3fn_fast": core(dtype=FP8, fp8_optimizations=True),
    "ours": ours,
}


def write_lora(path: Path, size: Size) -> None:
    """Write a LoRA of every linear layer in the blocks, small as trained ones are."""
    generator = torch.Generator().manual_seed(3)
    state: dict[str, Tensor] = {}
    for name, shape in checkpoints.shapes(size.double, size.single, width=size.width):
        if "blocks." in name and name.endswith(".weight"):
            module = f"diffusion_model.{name.removesuffix('.weight')}"
            up = torch.randn(shape[0], RANK, generator=generator) * 1e-3
            down = torch.randn(RANK, shape[1], generator=generator) * shape[1] ** -0.5
            state[f"{module}.lora_B.weight"] = up.to(torch.bfloat16)
            state[f"{module}.lora_A.weight"] = down.to(torch.bfloat16)
    save_file(state, path)


def with_lora(name: str, patcher: Any, path: Path) -> Any:
    """Apply the LoRA: ours with our node's function, the others as LoraLoaderModelOnly does."""
    if name == "ours":
        return inside.pack("engine.loras").apply(path, patcher, None, 1.0)[0]
    import comfy.sd
    import comfy.utils

    state = comfy.utils.load_torch_file(str(path), safe_load=True)
    return comfy.sd.load_lora_for_models(patcher, None, state, 1.0, 0)[0]


class Step:
    """One sampling step, as the sampler calls it."""

    def __init__(self, size: Size, device: torch.device) -> None:
        generator = torch.Generator(device).manual_seed(5)

        def random(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=device)

        self.latent = random(1, 16, size.side // 8, size.side // 8)
        self.text = random(1, size.text, checkpoints.CONTEXT)
        self.pooled = random(1, checkpoints.POOLED)
        self.guidance = torch.full((1,), 3.5, device=device)
        self.time = torch.full((1,), 0.7, device=device)

    def __call__(self, patcher: Any) -> Tensor:
        """Run the model once; [1,16,H/8,W/8]."""
        model = patcher.model
        return model.apply_model(
            self.latent, self.time, c_crossattn=self.text, y=self.pooled, guidance=self.guidance
        )


def wait(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(step: Step, patcher: Any, size: Size, device: torch.device) -> dict[str, Any]:
    """Time some steps of a model that is loaded, each for itself."""
    begun = time.perf_counter()
    out = step(patcher)
    for _ in range(size.warm - 1):
        step(patcher)
    wait(device)
    warm = time.perf_counter() - begun
    found = []
    for _ in range(size.steps):
        begun = time.perf_counter()
        out = step(patcher)
        wait(device)
        found.append(time.perf_counter() - begun)
    used = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    return {
        **common.summary(found, 5),
        "warm_up": round(warm, 2),
        "memory_gib": used and round(used, 2),
        "finite": bool(torch.isfinite(out).all()),
    }


def load_model(name: str, size: Size, device: torch.device) -> Any:
    """Return a model whose random weights were made on the device."""
    state = checkpoints.weights(size.double, size.single, width=size.width, device=device)
    return LOADERS[name](state)


def measure(name: str, size: Size, device: torch.device, lora: Path) -> dict[str, Any]:
    """Measure a model as it is and compiled, without and with a LoRA."""
    import comfy.model_management as management

    patcher = load_model(name, size, device)
    gc.collect()
    step, found = Step(size, device), {}
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    for compiled in (False, True):
        if compiled:
            network = patcher.model.diffusion_model
            torch.compiler.reset()
            for block in [*network.double_blocks, *network.single_blocks]:
                block.compile(dynamic=False)
        for adapted in (False, True):
            model = with_lora(name, patcher, lora) if adapted else patcher
            begun = time.perf_counter()
            management.load_models_gpu([model])
            wait(device)
            loaded = time.perf_counter() - begun
            case = ("compiled" if compiled else "as it is") + (", LoRA" if adapted else "")
            found[case] = timed(step, model, size, device) | {"load": round(loaded, 2)}
            print(f"{name:18}{case:18}{found[case]['seconds_median'] * 1e3:9.1f} ms", flush=True)
            del model
    del patcher
    management.unload_all_models()
    gc.collect()
    return found


def compare(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return how many times as fast ours is, and what a LoRA costs each."""
    table: dict[str, dict[str, float]] = {}
    for case, mine in found["ours"].items():
        table[case] = {
            f"{name} takes ... times ours": round(
                cases[case]["seconds_median"] / mine["seconds_median"], 3
            )
            for name, cases in found.items()
            if name != "ours" and case in cases
        }
    for name, cases in found.items():
        for case in ("as it is", "compiled"):
            if f"{case}, LoRA" in cases:
                share = cases[f"{case}, LoRA"]["seconds_median"] / cases[case]["seconds_median"]
                table.setdefault("a LoRA costs", {})[f"{name}, {case}"] = round(share - 1, 4)
    return table


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a tiny model, also without a GPU")
    parser.add_argument("--only", choices=list(LOADERS), action="append")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    size = SMALL if options.small else FULL
    if not options.small and not torch.cuda.is_available():
        raise SystemExit("this needs a GPU; --small runs anywhere")
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as scratch:
        folder = Path(scratch)
        inside.start(*ARGUMENTS["cuda" if torch.cuda.is_available() else "cpu"], models=folder)
        import comfy.model_management as management

        device = management.get_torch_device()
        lora = folder / "lora.safetensors"
        write_lora(lora, size)
        with torch.inference_mode():
            found = {
                name: measure(name, size, device, lora) for name in options.only or list(LOADERS)
            }
        route = str(inside.pack("engine.trial").choose(0, None))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    report = {
        "machine": common.machine("torch") | {"device": name},
        "setup": {**vars(size), "rank": RANK, "our_route": route},
        "models": found,
        "ratios": compare(found) if "ours" in found else {},
    }
    for case, ratios in report["ratios"].items():
        for what, value in ratios.items():
            print(f"{case:18}{what}: {value}")
    target = options.output or (None if options.small else common.RESULTS / "gpu_step.json")
    if target is not None:
        common.write(target, report)


if __name__ == "__main__":
    main()
