"""Test-only nodes: save what flows through a graph as safetensors, to compare outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from weakref import ref

import folder_paths
import torch
from safetensors.torch import save_file


def _save(name: str, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Save into the output folder and show the file's name under `saved`."""
    target = Path(folder_paths.get_output_directory(), f"{name}.safetensors")
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, target)
    return {"ui": {"saved": [target.name]}}


class _SavesTensors:
    CATEGORY = "flux hotswap tests"
    OUTPUT_NODE = True
    RETURN_TYPES = ()
    FUNCTION = "save"


class TestSaveConditioning(_SavesTensors):
    """Saves entry k of a CONDITIONING as `cond`, `pooled_output`, `guidance` (`.k` when k > 0)."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        return {"required": {"conditioning": ("CONDITIONING",), "filename": ("STRING", {})}}

    def save(self, conditioning: list[Any], filename: str) -> dict[str, Any]:
        tensors = {}
        for index, (cond, extra) in enumerate(conditioning):
            suffix = f".{index}" if index else ""
            tensors[f"cond{suffix}"] = cond
            for key in ("pooled_output", "guidance"):
                if extra.get(key) is not None:
                    tensors[f"{key}{suffix}"] = torch.as_tensor(extra[key])
        return _save(filename, tensors)


class TestSaveTensor(_SavesTensors):
    """Saves what is connected as `latent` and `noise_mask`, `sigmas`, `noise`, `image`, `mask`.

    NOISE is drawn for the connected LATENT, as a sampler would.
    """

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        kinds = ("latent", "sigmas", "noise", "image", "mask")
        return {
            "required": {"filename": ("STRING", {})},
            "optional": {kind: (kind.upper(),) for kind in kinds},
        }

    def save(
        self,
        filename: str,
        latent: dict[str, Any] | None = None,
        noise: Any = None,
        **plain: torch.Tensor,
    ) -> dict[str, Any]:
        tensors = dict(plain)
        if latent is not None:
            tensors["latent"] = latent["samples"]
            if latent.get("noise_mask") is not None:
                tensors["noise_mask"] = latent["noise_mask"]
        if noise is not None:
            if latent is None:
                raise ValueError("connect the LATENT that the noise is for")
            tensors["noise"] = noise.generate_noise(latent)
        return _save(filename, tensors)


_SEEN: dict[str, ref[Any]] = {}


class TestSeen:
    """Shows under `seen` which of its inputs are the objects of the last time; holds none."""

    CATEGORY = "flux hotswap tests"
    OUTPUT_NODE = True
    RETURN_TYPES = ()
    FUNCTION = "look"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        return {"required": {"model": ("MODEL",), "conditioning": ("CONDITIONING",)}}

    def look(self, model: Any, conditioning: list[Any]) -> dict[str, Any]:
        things = {"model": model, "text": conditioning[0][0]}
        same = [name for name, thing in things.items() if _SEEN.get(name, str)() is thing]
        _SEEN.update({name: ref(thing) for name, thing in things.items()})
        return {"ui": {"seen": same}}


NODE_CLASS_MAPPINGS = {
    "TestSeen": TestSeen,
    "TestSaveConditioning": TestSaveConditioning,
    "TestSaveTensor": TestSaveTensor,
}
