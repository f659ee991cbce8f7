"""DoRA on ComfyUI's own model, in every spelling: exact, on the rows that it is of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mini_flux import loras
from runtime import inside
from runtime.lora_states import (
    DEV,
    KINDS,
    NATIVE,
    PROJ,
    QKV,
    RANDOM,
    H,
    State,
    all_of,
    changes,
    drawn,
    whole_change,
)
from torch import Tensor

FUSED = "single_blocks.1.linear1"
NORM_OUT = "final_layer.adaLN_modulation.1"
PEFT_SPELLINGS = {
    "diffusers": "lora_magnitude_vector",
    "OneTrainer": "lora_magnitude_vector.weight",
    "PEFT": "lora_magnitude_vector.default.weight",
    "ai-toolkit": "magnitude",
}


def lengths_of(weight: Tensor, axis: int = 0) -> Tensor:
    norm = weight.norm(dim=1 - axis)
    return norm * (1 + 0.1 * torch.randn(len(norm), generator=RANDOM))


def with_lengths(weight: Tensor, delta: Tensor, lengths: Tensor, strength: float) -> Tensor:
    """The change of a weight by PEFT's DoRA, per row, written out."""
    moved = weight + strength * delta
    return lengths[:, None] * moved / moved.square().sum(dim=1, keepdim=True).sqrt() - weight


@pytest.mark.parametrize("strength", [1.0, 0.5, 1.5])
@pytest.mark.parametrize("spelled", PEFT_SPELLINGS.values(), ids=list(PEFT_SPELLINGS))
def test_pefts_magnitudes_are_applied_to_their_rows(
    applied: Any, weights: State, caplog: Any, spelled: str, strength: float
) -> None:
    """Of fused layers each part has its own; those of norm_out change places as its halves do."""
    delta = {name: part for name, part in loras.everything().items() if name != "img_in"}
    state, wanted = loras.diffusers(delta), {}
    for name in delta:
        weight = weights[f"{name}.weight"]
        lengths = lengths_of(weight)
        wanted[name] = with_lengths(weight, whole_change(delta, name), lengths, strength)
        if name == NORM_OUT:
            lengths = torch.cat(lengths.chunk(2)[::-1])
        names = [f"transformer.{part}" for part in loras.diffusers_names(name)]
        rows = [len(state[f"{part}.lora_B.weight"]) for part in names]
        for part, some in zip(names, lengths.split(rows), strict=True):
            state[f"{part}.{spelled}"] = some
    made, fit = applied(state, strength)
    assert all_of(fit)
    change = changes(made, weights, caplog)
    for name, expected in wanted.items():
        torch.testing.assert_close(change[f"{name}.weight"], expected, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("slots", ["pair", "LoHa", "LoKr", "GLoRA"])
def test_lycoris_magnitudes_are_exact(
    applied: Any, weights: State, caplog: Any, slots: str, axis: int, strength: float
) -> None:
    state = {f"{NATIVE}.{slot}": value for slot, value in KINDS[slots].items()}
    weight = weights[f"{PROJ}.weight"]
    delta = changes(applied(state)[0], weights, caplog)[f"{PROJ}.weight"]
    scale = lengths_of(weight, axis).unsqueeze(1 - axis)
    made, fit = applied(state | {f"{NATIVE}.dora_scale": scale}, strength)
    assert all_of(fit)
    moved = weight + delta
    expected = scale * moved / moved.norm(dim=1 - axis, keepdim=True) - weight
    change = changes(made, weights, caplog)[f"{PROJ}.weight"]
    torch.testing.assert_close(change, strength * expected, atol=2e-6, rtol=1e-4)


def test_magnitudes_of_a_fused_layer_whole(applied: Any, weights: State, caplog: Any) -> None:
    delta = {FUSED: loras.blocks()[FUSED]}
    weight = weights[f"{FUSED}.weight"]
    lengths = lengths_of(weight)
    state = loras.kohya(delta, alpha=2.0)
    state["lora_unet_single_blocks_1_linear1.dora_scale"] = lengths[:, None]
    made, fit = applied(state)
    assert all_of(fit)
    expected = with_lengths(weight, whole_change(delta, FUSED), lengths, 1.0)
    change = changes(made, weights, caplog)[f"{FUSED}.weight"]
    torch.testing.assert_close(change, expected, atol=2e-6, rtol=1e-4)


def test_magnitudes_of_both_spellings_count_once(applied: Any) -> None:
    state = {f"{NATIVE}.{slot}": value for slot, value in KINDS["DoRA of columns"].items()}
    fit = applied(state | {f"{NATIVE}.lora_magnitude_vector": torch.ones(H)})[1]
    assert fit.unread == [f"{NATIVE}.dora_scale"]


@pytest.mark.parametrize("low", [False, True], ids=["loaded", "low memory"])
@pytest.mark.parametrize("route", ["storage", "int8"])
def test_magnitudes_beside_a_weight_in_int8_are_the_formula(
    comfy: Any, models: Path, monkeypatch: Any, route: str, low: bool
) -> None:
    """Of the weight alone, not of the bias, which the file changes too."""
    loading, engine = inside.pack("engine.models"), inside.pack("engine.loras")
    monkeypatch.setenv(inside.pack("engine.trial").VARIABLE, route)
    fast, _ = loading.load_fast(models / "diffusion_models" / DEV, modulation=False)
    layer = fast.model.diffusion_model.get_submodule(QKV)
    weight = inside.pack("engine.rows").Rows.of(layer, layer.weight).exact(slice(None))
    delta, lengths, bias = {QKV: loras.blocks()[QKV]}, lengths_of(weight), drawn(3 * H, size=1.0)
    state = loras.native(delta) | {f"diffusion_model.{QKV}.magnitude": lengths}
    state[f"diffusion_model.{QKV}.diff_b"] = bias
    path = models / "loras" / "fast-dora.safetensors"
    loras.write(state, path)
    made, _, fitted = engine.apply(path, fast, None, 1.0)
    assert all_of(fitted.fit)
    tokens = drawn(64, H, size=1.0)
    comfy.model_management.load_models_gpu([fast])
    before = layer(tokens)
    comfy.model_management.unload_all_models()
    if low:
        made.partially_load(torch.device("cpu"), extra_memory=1)
    else:
        comfy.model_management.load_models_gpu([made])
    change = layer(tokens) - before
    made.detach()
    wanted = tokens @ with_lengths(weight, whole_change(delta, QKV), lengths, 1.0).T + bias
    assert float((change - wanted).norm() / wanted.norm()) < 0.01, "a bias in bf16 is off by 0.002"


@pytest.mark.parametrize("route", ["bf16", "storage"])
def test_magnitudes_arrive_where_memory_is_low(
    comfy: Any, models: Path, monkeypatch: Any, route: str
) -> None:
    """Layers that ComfyUI leaves where they are get their patches in each run."""
    loading, engine = inside.pack("engine.models"), inside.pack("engine.loras")
    monkeypatch.setenv(inside.pack("engine.trial").VARIABLE, "storage")
    file = models / "diffusion_models" / DEV
    model = (
        loading.load_flux(file) if route == "bf16" else loading.load_fast(file, modulation=False)[0]
    )
    layer = model.model.diffusion_model.get_submodule(QKV)
    state = loras.native({QKV: loras.blocks()[QKV]})
    state[f"diffusion_model.{QKV}.magnitude"] = 1 + drawn(3 * H)
    path = models / "loras" / "low.safetensors"
    loras.write(state, path)
    made = engine.apply(path, model, None, 1.0)[0]
    tokens = drawn(64, H, size=1.0)
    comfy.model_management.load_models_gpu([made])
    wanted = layer(tokens)
    comfy.model_management.unload_all_models()
    made.partially_load(torch.device("cpu"), extra_memory=1)
    found = layer(tokens)
    made.detach()
    assert float((found - wanted).norm() / wanted.norm()) < 0.01
    assert float((layer(tokens) - wanted).norm() / wanted.norm()) > 0.1, "it does nothing"


ROWS_OF = {"lora_magnitude_vector": 1 + drawn(H), **KINDS["pair"]}


@pytest.mark.parametrize("slots", [*KINDS.values(), ROWS_OF], ids=[*KINDS, "DoRA of rows"])
def test_an_adapter_that_the_core_makes_anew_is_the_same(
    applied: Any, weights: State, slots: State
) -> None:
    """A current core does so with what it has moved to the GPU, where memory is low."""
    import comfy.lora

    made = applied({f"{NATIVE}.{slot}": value for slot, value in slots.items()}, 0.7)[0]
    name = f"diffusion_model.{PROJ}.weight"
    ((strength, patch, *others),) = made.patches[name]
    again = patch
    if not isinstance(patch, tuple):
        again = type(patch)(patch.loaded_keys, list(patch.weights))
    weight = weights[f"{PROJ}.weight"]
    one, two = (
        comfy.lora.calculate_weight([(strength, p, *others)], weight.clone(), name)
        for p in (patch, again)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, weight)
