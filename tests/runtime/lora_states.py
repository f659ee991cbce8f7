"""What the tests of LoRA files on ComfyUI's own model have in common."""

from __future__ import annotations

from typing import Any

import torch
from mini_flux import loras, shapes
from torch import Tensor

DEV = "flux1-dev.safetensors"
H = shapes.HIDDEN
RANDOM = torch.Generator().manual_seed(7)
PROJ, QKV = "double_blocks.0.img_attn.proj", "double_blocks.0.img_attn.qkv"
NATIVE = f"diffusion_model.{PROJ}"

State = dict[str, Tensor]


def drawn(*shape: int, size: float = 0.05) -> Tensor:
    return torch.randn(*shape, generator=RANDOM) * size


def changes(made: Any, weights: State, caplog: Any) -> State:
    """What the patches change of each weight, in float32; the core may log no error."""
    import comfy.lora

    found = {}
    for key, patches in made.patches.items():
        name = key.removeprefix("diffusion_model.")
        before = weights[name].clone()
        after = comfy.lora.calculate_weight(patches, before.clone(), key)
        found[name] = after - before
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "WARNING")]
    return found


def all_of(fit: Any) -> bool:
    return fit.matched == fit.keys and not fit.misfits


def whole_change(delta: loras.Delta, name: str) -> Tensor:
    return delta[name].up @ delta[name].down


KINDS: dict[str, State] = {
    "pair": {"lora_up.weight": drawn(H, 4), "lora_down.weight": drawn(4, H)},
    "DoRA of columns": {
        "lora_up.weight": drawn(H, 4),
        "lora_down.weight": drawn(4, H),
        "dora_scale": 1 + drawn(1, H),
    },
    "LoHa": {
        "hada_w1_a": drawn(H, 2),
        "hada_w1_b": drawn(2, H),
        "hada_w2_a": drawn(H, 2),
        "hada_w2_b": drawn(2, H),
    },
    "LoKr": {"lokr_w1": drawn(8, 8), "lokr_w2": drawn(H // 8, H // 8)},
    "LoKr in factors": {
        "lokr_w1": drawn(8, 8),
        "lokr_w2_a": drawn(H // 8, 2),
        "lokr_w2_b": drawn(2, H // 8),
        "alpha": torch.tensor(1.0),
    },
    "GLoRA": {
        "a1.weight": drawn(H, 2),
        "a2.weight": drawn(2, H),
        "b1.weight": drawn(H, 2),
        "b2.weight": drawn(2, H),
    },
    "OFT": {"oft_blocks": drawn(8, H // 8, H // 8)},
    "BOFT": {"oft_blocks": drawn(2, H // 8, 8, 8)},
    "BOFT with rescale": {"oft_blocks": drawn(2, H // 8, 8, 8), "rescale": 1 + drawn(H, 1)},
    "difference": {"diff": drawn(H, H), "diff_b": drawn(H)},
}
