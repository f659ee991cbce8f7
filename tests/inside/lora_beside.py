"""LoHa and LoKr with go_fast: beside the weight like a LoRA, which stays as it is bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mini_flux import loras
from runtime import inside
from runtime.lora_states import DEV, QKV, H, State, all_of, changes, drawn

TO_Q = "lycoris_transformer_blocks_0_attn_to_q"
NATIVE = f"diffusion_model.{QKV}"
TOKENS = drawn(256, H, size=1.0)

FORMS: dict[str, State] = {
    "LoKr": {f"{NATIVE}.lokr_w1": drawn(16, 8), f"{NATIVE}.lokr_w2": drawn(3 * H // 16, H // 8)},
    "LoKr in factors": {
        f"{NATIVE}.lokr_w1_a": drawn(16, 4),
        f"{NATIVE}.lokr_w1_b": drawn(4, 8),
        f"{NATIVE}.lokr_w2_a": drawn(3 * H // 16, 2),
        f"{NATIVE}.lokr_w2_b": drawn(2, H // 8),
        f"{NATIVE}.alpha": torch.tensor(3.0),
    },
    "LoKr, the first in factors": {
        f"{NATIVE}.lokr_w1_a": drawn(16, 4),
        f"{NATIVE}.lokr_w1_b": drawn(4, 8),
        f"{NATIVE}.lokr_w2": drawn(3 * H // 16, H // 8),
        f"{NATIVE}.alpha": torch.tensor(3.0),
    },
    "LoKr of some rows": {f"{TO_Q}.lokr_w1": drawn(8, 8), f"{TO_Q}.lokr_w2": drawn(H // 8, H // 8)},
    "LoHa": {
        f"{NATIVE}.hada_w1_a": drawn(3 * H, 4),
        f"{NATIVE}.hada_w1_b": drawn(4, H),
        f"{NATIVE}.hada_w2_a": drawn(3 * H, 2),
        f"{NATIVE}.hada_w2_b": drawn(2, H),
        f"{NATIVE}.alpha": torch.tensor(2.0),
    },
}


@pytest.fixture(params=["int8", "storage"])
def fast(request: pytest.FixtureRequest, comfy: Any, models: Path, monkeypatch: Any) -> Any:
    monkeypatch.setenv(inside.pack("engine.trial").VARIABLE, request.param)
    path = models / "diffusion_models" / DEV
    return inside.pack("engine.models").load_fast(path, modulation=False)[0]


def sized(state: State, weight: Any, change: Any, size: float) -> State:
    """The same form, its change this large against the weight."""
    name = next(name for name in state if "w2" in name and not name.endswith("_b"))
    return {**state, name: state[name] * (size * weight.norm() / change.norm())}


@pytest.mark.parametrize("strength", [1.0, -0.5])
@pytest.mark.parametrize("size", [0.005, 0.02, 0.1])
@pytest.mark.parametrize("state", FORMS.values(), ids=list(FORMS))
def test_it_arrives_whole_with_no_more_noise_than_a_lora(
    comfy: Any,
    fast: Any,
    applied: Any,
    weights: State,
    models: Path,
    caplog: Any,
    state: State,
    size: float,
    strength: float,
) -> None:
    weight = weights[f"{QKV}.weight"]
    known = changes(applied(state)[0], weights, caplog)[f"{QKV}.weight"]
    state = sized(state, weight, known, size)
    wanted = TOKENS @ changes(applied(state)[0], weights, caplog)[f"{QKV}.weight"].T * strength
    path = models / "loras" / "form.safetensors"
    loras.write(state, path)
    made, _, fitted = inside.pack("engine.loras").apply(path, fast, None, strength)
    assert all_of(fitted.fit)
    layer = fast.model.diffusion_model.get_submodule(QKV)
    comfy.model_management.load_models_gpu([fast])
    before, stored = layer(TOKENS), layer.weight.detach().clone()
    comfy.model_management.load_models_gpu([made])
    change = layer(TOKENS) - before
    assert torch.equal(layer.weight, stored), "the weight was changed"
    assert layer.weight.dtype == torch.int8
    gain = float((change * wanted).sum() / wanted.square().sum())
    noise = float((change - gain * wanted).norm() / wanted.norm())
    assert gain == pytest.approx(1, abs=0.02)
    assert noise < 0.1
    comfy.model_management.load_models_gpu([fast])
    assert torch.equal(layer(TOKENS), before)


def test_a_lora_and_a_lokr_of_one_layer_add_up(comfy: Any, fast: Any, models: Path) -> None:
    engine = inside.pack("engine.loras")
    layer = fast.model.diffusion_model.get_submodule(QKV)
    states = [FORMS["LoKr of some rows"], loras.native({QKV: loras.blocks()[QKV]})]
    comfy.model_management.load_models_gpu([fast])
    before, single, both = layer(TOKENS), [], fast
    for index, state in enumerate(states):
        path = models / "loras" / f"one{index}.safetensors"
        loras.write(state, path)
        alone = engine.apply(path, fast, None, 1.0)[0]
        comfy.model_management.load_models_gpu([alone])
        single.append(layer(TOKENS) - before)
        both = engine.apply(path, both, None, 1.0)[0]
    comfy.model_management.load_models_gpu([both])
    torch.testing.assert_close(layer(TOKENS) - before, sum(single), atol=1e-4, rtol=1e-3)
