"""Stage 9: engine fp8 on the card beside the same on the CPU, which is as the hosted code there."""

from __future__ import annotations

from typing import Any

import torch
from runtime import inside
from torch import Tensor

from .kit import Kit, distance
from .step import SMALL, Step, load, with_lora, write_lora

CPU = torch.device("cpu")


@torch.inference_mode()
def run(kit: Kit) -> None:
    """Note how far predictions of a small model are apart, without and with a LoRA."""
    kit.start_comfyui()
    first = load("fp8", SMALL, kit.device)
    lora = write_lora(kit.scratch / "lora-of-hosted.safetensors", SMALL)
    models = {CPU: twin(kit, first), kit.device: first}
    for adapted in (False, True):
        made = {
            device: predict(with_lora("fp8", model, lora) if adapted else model, device)
            for device, model in models.items()
        }
        apart = distance(made[kit.device], made[CPU])
        what = "with a LoRA" if adapted else "without a LoRA"
        finite = bool(torch.isfinite(made[kit.device]).all())
        kit.note(f"fp8, {what}: apart from the CPU's prediction", round(apart, 5),
                 predicted="0 where sums are made in the same order",
                 holds=None if finite else False)  # fmt: skip


def twin(kit: Kit, first: Any) -> Any:
    """Return the same model once more, with the same scales of inputs."""
    made = load("fp8", SMALL, kit.device)
    layers = inside.pack("engine.hosted").hosted_layers
    for name, layer in layers(first.model).items():
        layers(made.model)[name].take("input_scale", layer.input_scale)
    return made


def predict(patcher: Any, device: torch.device) -> Tensor:
    """Return what a model predicts on a device, on the CPU."""
    import comfy.model_management as management

    management.unload_all_models()
    patcher.load_device, patcher.offload_device = device, CPU
    management.load_models_gpu([patcher])
    return Step(SMALL, CPU).on(device)(patcher).float().cpu()
