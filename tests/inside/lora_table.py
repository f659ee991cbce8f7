"""The table of FLUX.1's weights and their names in LoRA files, against ComfyUI's own model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from flux_hotswap.ops.lora.flux1 import MODEL, key_map, shapes

CONFIG = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "vec_in_dim": 768,
    "context_in_dim": 4096,
    "hidden_size": 3072,
    "mlp_ratio": 4.0,
    "num_heads": 24,
    "depth": 19,
    "depth_single_blocks": 38,
    "axes_dim": [16, 56, 56],
    "theta": 10000,
    "qkv_bias": True,
    "guidance_embed": True,
}
"""FLUX.1 dev's, as ComfyUI finds them in its file."""


def test_the_model(comfy: Any) -> None:
    import comfy.lora
    import comfy.model_base
    import comfy.ops
    from comfy.ldm.flux.model import Flux

    network = Flux(
        **CONFIG,
        device=torch.device("meta"),
        dtype=torch.bfloat16,
        operations=comfy.ops.disable_weight_init,
    )
    model = comfy.model_base.Flux.__new__(comfy.model_base.Flux)
    torch.nn.Module.__init__(model)
    model.diffusion_model = network
    model.model_config = SimpleNamespace(unet_config=CONFIG)
    theirs = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    ours = {name: shape for name, shape in shapes().items() if name.startswith(MODEL)}
    assert ours == theirs
    names = comfy.lora.model_lora_keys_unet(model, {})
    same = {name: _rows(key) for name, key in names.items() if _weight(key) in theirs}
    assert {n: key for n, key in key_map().items() if _weight(key) in theirs} == same


def test_the_text_encoders(comfy: Any) -> None:
    import comfy.lora
    import comfy.ops
    import comfy.text_encoders.flux

    make: Any = comfy.text_encoders.flux.flux_clip(dtype_t5=torch.bfloat16)
    model = make(device="meta", dtype=torch.bfloat16)
    theirs = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    ours = {name: shape for name, shape in shapes().items() if not name.startswith(MODEL)}
    assert ours.items() <= theirs.items()
    assert {name.rpartition(".")[2] for name in theirs.keys() - ours.keys()} == {"logit_scale"}
    names = comfy.lora.model_lora_keys_clip(model, {})
    same = {name: key for name, key in names.items() if key in ours}
    assert {name: key for name, key in key_map().items() if key in ours} == same


def _weight(key: Any) -> str:
    return key if isinstance(key, str) else key[0]


def _rows(key: Any) -> Any:
    """The core's key without the function that swaps halves, which changes no size."""
    return key[0] if not isinstance(key, str) and key[1] is None else key
