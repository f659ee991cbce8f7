"""Stage 8: a file on the card: quantising it, loading it again, half of it left behind.

What is left behind comes over pinned and in streams, which ComfyUI does by itself, or without both.
Its dynamic VRAM is set up by its main.py, which does not run here: whole layers are moved.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from runtime import inside

from bench import checkpoints

from .kit import Kit
from .step import SMALL, Size, Step, with_lora, write_lora

SIZE = Size(4, 8, checkpoints.WIDTH, 512, 512, 3, 1)


@torch.inference_mode()
def run(kit: Kit) -> None:
    """Load cold and warm; then compare half loaded models with whole ones."""
    import comfy.model_management as management

    path, size = file_of(kit)
    patcher: Any = None

    def load() -> None:
        nonlocal patcher
        patcher = loaded(path, "int8")
        management.load_models_gpu([patcher])

    for what in (
        "quantising and keeping a file, to the card",
        "loading the kept file, to the card",
    ):
        management.unload_all_models()
        kit.forget_peak()
        taken = kit.seconds(load)
        kit.note(what, round(taken, 2), "s", peak_gb=kit.peak(), file_gb=path.stat().st_size / 1e9)
    dynamic = inside.pack("engine.checkpoint").is_dynamic(patcher)
    how = "dynamic VRAM" if dynamic else "whole layers; dynamic VRAM is not measured"
    kit.note("half loaded: what is moved", how)
    for adapted in (False, True):
        half_loaded(kit, "int8", patcher, size, adapted=adapted)
    free(kit, patcher)
    taken = kit.seconds(lambda: loaded(path, "fp8"))
    kit.note("quantising a file for engine fp8", round(taken, 2), "s")
    for adapted in (False, True):
        half_loaded(kit, "fp8", loaded(path, "fp8"), size, adapted=adapted)


@torch.inference_mode()
def plainly(kit: Kit) -> None:
    """Compare a half loaded model with the whole one in a ComfyUI without streams and pinning."""
    path, size = file_of(kit)
    patcher = loaded(path, "int8")
    half_loaded(kit, "int8", patcher, size, adapted=True, how=", not pinned, no streams")


def file_of(kit: Kit) -> tuple[Path, Size]:
    """Start ComfyUI; the checkpoint, written unless it is there, and its size."""
    kit.start_comfyui()
    size = SMALL if kit.small else SIZE
    path = kit.scratch / "models" / "diffusion_models" / "flux.safetensors"
    return checkpoints.write(path, size.double, size.single, width=size.width), size


def loaded(path: Path, engine: str) -> Any:
    """Return the model as the Loader does; int8 is storage where nothing multiplies in it."""
    if engine == "int8" and inside.pack("engine.trial").any_matmul() is None:
        engine = "storage"
    os.environ["FLUX_HOTSWAP_ENGINE"] = engine
    load = inside.pack("engine.models").load
    return load(path, "dev", go_fast=True, modulation="bf16")[0]


def half_loaded(
    kit: Kit, engine: str, patcher: Any, size: Size, *, adapted: bool, how: str = ""
) -> None:
    """Note whether a model with half of its weights in main memory gives the same bits."""
    import comfy.model_management as management

    # Without those of bf16 layers: merged they are rounded, left behind they are not.
    lora = write_lora(kit.scratch / "lora-of-files.safetensors", size, modulation=False)
    model = with_lora(engine, patcher, lora) if adapted else patcher
    step = Step(size, kit.device)
    what = f"{engine}, half loaded{how}, {'with' if adapted else 'without'} a LoRA"
    management.unload_all_models()
    management.load_models_gpu([model])
    whole = step(model)
    fast = kit.median(lambda: step(model), runs=3, warm=1)
    management.unload_all_models()
    # This method is for the loading to a given room; `load_models_gpu` reckons its own.
    model.partially_load(kit.device, extra_memory=model.model_size() // 2)
    half = step(model)
    slow = kit.median(lambda: step(model), runs=3, warm=1)
    model.detach()
    kit.note(f"{what}: the same bits", torch.equal(whole, half), predicted="True",
             holds=torch.equal(whole, half))  # fmt: skip
    kit.note(f"{what}: a step takes", round(slow / fast, 2), "times a whole one's",
             whole_ms=round(fast * 1e3, 1))  # fmt: skip


def free(kit: Kit, patcher: Any) -> None:
    """Note what stays on the card when all is unloaded."""
    import comfy.model_management as management

    if kit.device.type != "cuda":
        return
    management.unload_all_models()
    patcher.detach()
    forget: Any = getattr(management, "reset_cast_buffers", None)
    if forget is not None:  # newer versions keep the buffers that weights came over in
        forget()
    clear: Any = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
    if clear is not None:  # cuBLAS' workspaces, which are of no model
        clear()
    management.soft_empty_cache()
    left = torch.cuda.memory_allocated(kit.device) / 1e6
    kit.note("left on the card when unloaded", round(left), "MB", predicted="below 50 MB",
             holds=left < 50)  # fmt: skip
