"""Stage 8: a file on the card: quantising it, loading it again, half of it left behind."""

from __future__ import annotations

import os
from typing import Any

import torch
from runtime import inside

from bench import checkpoints

from .kit import Kit
from .step import SMALL, Size, Step, with_lora, write_lora

SIZE = Size(4, 8, checkpoints.WIDTH, 512, 512, 3, 1)


@torch.inference_mode()
def run(kit: Kit) -> None:
    """Load cold and warm; then compare a half loaded model with the whole one."""
    kit.start_comfyui()
    size = SMALL if kit.small else SIZE
    path = kit.scratch / "models" / "diffusion_models" / "flux.safetensors"
    checkpoints.write(path, size.double, size.single, width=size.width)
    matmul = inside.pack("engine.trial").any_matmul() is not None
    os.environ["FLUX_HOTSWAP_ENGINE"] = "int8" if matmul else "storage"
    models = inside.pack("engine.models")
    patcher: Any = None

    def load() -> None:
        nonlocal patcher
        patcher = models.load_fast(path, modulation=False)[0]

    for what in ("quantising and keeping a file", "loading the kept file"):
        kit.forget_peak()
        taken = kit.seconds(load)
        kit.note(what, round(taken, 2), "s", peak_gb=kit.peak(), file_gb=path.stat().st_size / 1e9)
    # Without those of bf16 layers: merged they are rounded, left behind they are not.
    lora = write_lora(kit.scratch / "lora-of-files.safetensors", size, modulation=False)
    step = Step(size, kit.device)
    for adapted in (False, True):
        model = with_lora("int8", patcher, lora) if adapted else patcher
        half_loaded(kit, model, step, "with a LoRA" if adapted else "without a LoRA")
    free(kit, patcher)


def half_loaded(kit: Kit, model: Any, step: Step, what: str) -> None:
    """Note whether a model with half of its weights in main memory gives the same bits."""
    import comfy.model_management as management

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
    kit.note(f"half loaded, {what}: the same bits", torch.equal(whole, half), predicted="True",
             holds=torch.equal(whole, half))  # fmt: skip
    kit.note(f"half loaded, {what}: a step takes", round(slow / fast, 2), "times a whole one's",
             whole_ms=round(fast * 1e3, 1))  # fmt: skip


def free(kit: Kit, patcher: Any) -> None:
    """Note what stays on the card when all is unloaded."""
    import comfy.model_management as management

    if kit.device.type != "cuda":
        return
    management.unload_all_models()
    patcher.detach()
    management.soft_empty_cache()
    left = torch.cuda.memory_allocated(kit.device) / 1e6
    kit.note("left on the card when unloaded", round(left), "MB", predicted="below 50 MB",
             holds=left < 50)  # fmt: skip
