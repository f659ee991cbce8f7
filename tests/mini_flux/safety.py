"""Small safety networks under the names of the real ones. They find nothing unsafe.

Their towers are random, but no picture can be closer to a concept than a cosine of 1, and the
thresholds lie above that. Whether flags are right is tested elsewhere, against other networks.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

_TOWER: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "image_size": 224,
    "patch_size": 32,
}
_OUT_OF_REACH = 2.0


def compvis() -> dict[str, Tensor]:
    """The tensors of a small CompVis checker."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    config = transformers.CLIPConfig(vision_config=_TOWER, projection_dim=32)
    network = StableDiffusionSafetyChecker(config)
    state = _shuffled(network, seed=5)
    for kind in ("concept", "special_care"):
        state[f"{kind}_embeds_weights"].fill_(_OUT_OF_REACH)
    return state


def falcon() -> dict[str, Tensor]:
    """The tensors of a small Falconsai classifier."""
    config = transformers.ViTConfig(**_TOWER, id2label={0: "normal", 1: "nsfw"})
    return _shuffled(transformers.ViTForImageClassification(config), seed=6)


def _shuffled(network: Any, *, seed: int) -> dict[str, Tensor]:
    """Random tensors under the names of a published file, which differ from those in memory."""
    generator = torch.Generator().manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        stored = load_file(Path(folder) / "model.safetensors")
    return {
        name: torch.randn(value.shape, generator=generator) * 0.1
        if value.is_floating_point()
        else value.clone()
        for name, value in sorted(stored.items())
    }
