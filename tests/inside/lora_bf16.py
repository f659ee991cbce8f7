"""What of a small LoRA arrives in a weight in bf16, as the page on LoRA files says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mini_flux import loras, shapes
from runtime import inside
from runtime.environment import ROOT
from runtime.lora_states import DEV, drawn

LAYER = "double_blocks.0.img_mod.lin"
"""One that go_fast leaves in bf16."""
PAGE = (ROOT / "docs" / "loras.md").read_text(encoding="utf-8")
STATED = [
    (float(size) / 100, float(gain))
    for size, gain in re.findall(r"^\| ([\d.]+) % \| ([\d.]+) \|$", PAGE, re.M)
]


def test_the_page_states_some() -> None:
    assert [size for size, _ in STATED] == [0.001, 0.003, 0.01]


@pytest.mark.parametrize(("size", "gain"), STATED)
def test_what_arrives_in_bf16_is_what_the_page_says(
    comfy: Any, models: Path, monkeypatch: Any, size: float, gain: float
) -> None:
    monkeypatch.setenv(inside.pack("engine.trial").VARIABLE, "storage")
    path = models / "diffusion_models" / DEV
    fast = inside.pack("engine.models").load_fast(path, modulation=False)[0]
    layer = fast.model.diffusion_model.get_submodule(LAYER)
    comfy.model_management.load_models_gpu([fast])
    before = layer.weight.float().clone()
    assert layer.weight.dtype == torch.bfloat16
    down, up = drawn(16, shapes.HIDDEN), drawn(6 * shapes.HIDDEN, 16)
    up = up * (size * before.norm() / (up @ down).norm())
    file = models / "loras" / "small.safetensors"
    loras.write(loras.native({LAYER: loras.Part(down, up)}), file)
    made = inside.pack("engine.loras").apply(file, fast, None, 1.0)[0]
    comfy.model_management.load_models_gpu([made])
    change, wanted = layer.weight.float() - before, up @ down
    found = float((change * wanted).sum() / wanted.square().sum())
    assert found == pytest.approx(gain, abs=0.03)
