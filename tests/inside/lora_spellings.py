"""The same change under every spelling of a LoRA file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mini_flux import loras, shapes
from runtime import inside
from runtime.lora_spelled import SPELLINGS
from runtime.lora_states import QKV, State, all_of, changes, drawn, whole_change


@pytest.mark.parametrize("spelled", SPELLINGS.values(), ids=list(SPELLINGS))
def test_every_spelling_is_the_same_change(
    applied: Any, weights: State, caplog: Any, spelled: Callable[[loras.Delta], State]
) -> None:
    delta = loras.everything()
    made, fit = applied(spelled(delta))
    assert all_of(fit)
    assert fit.patched == len(delta)
    change = changes(made, weights, caplog)
    for name in delta:
        torch.testing.assert_close(
            change[f"{name}.weight"], whole_change(delta, name), atol=1e-6, rtol=1e-5
        )


def test_xlabs_alphas_are_read(applied: Any, weights: State, caplog: Any) -> None:
    delta = {QKV: loras.attention()[QKV]}
    state = loras.xlabs(delta) | {"double_blocks.0.processor.qkv_lora1.alpha": torch.tensor(2.0)}
    made, fit = applied(state)
    assert all_of(fit)
    change = changes(made, weights, caplog)[f"{QKV}.weight"]
    torch.testing.assert_close(change, whole_change(delta, QKV) / 2, atol=1e-6, rtol=1e-5)


T5 = "encoder.block.3.layer.0.SelfAttention.q"
LAYER = "text_model.encoder.layers.1.mlp.fc1"
TEXTS = {
    "OMI": (f"clip_l.{LAYER}", f"t5.{T5}"),
    "PEFT": (f"base_model.model.{LAYER}", f"base_model.model.{T5}"),
    "diffusers": (f"text_encoder.{LAYER}", f"text_encoder_2.{T5}"),
    "PEFT of a pipeline": (
        f"base_model.model.text_encoder.{LAYER}",
        f"base_model.model.text_encoder_2.{T5}",
    ),
    "ComfyUI": (
        f"text_encoders.clip_l.transformer.{LAYER}",
        f"text_encoders.t5xxl.transformer.{T5}",
    ),
}


@pytest.mark.parametrize("modules", TEXTS.values(), ids=list(TEXTS))
def test_text_encoders_are_found(
    full: Any, clip: Any, models: Path, modules: tuple[str, str]
) -> None:
    inner = shapes.T5_HEADS * shapes.T5_KV
    sizes = ((shapes.CLIP_FF, shapes.CLIP_WIDTH), (inner, shapes.T5_WIDTH))
    state = {}
    for module, (rows, width) in zip(modules, sizes, strict=True):
        state[f"{module}.lora_A.weight"] = drawn(4, width)
        state[f"{module}.lora_B.weight"] = drawn(rows, 4)
    path = models / "loras" / "text.safetensors"
    loras.write(state, path)
    _, text, fitted = inside.pack("engine.loras").apply(path, full, clip, 1.0)
    assert all_of(fitted.fit)
    assert len(text.patcher.patches) == 2
    with pytest.raises(inside.pack("errors").LoraError, match="connect clip"):
        inside.pack("engine.loras").apply(path, full, None, 1.0)
