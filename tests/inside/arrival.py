"""How strongly a LoRA runs with go_fast: as much arrives as on the hosted model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mini_flux import loras, shapes
from runtime import inside
from safetensors.torch import load_file

DEV = "flux1-dev.safetensors"
QKV = "double_blocks.0.img_attn.qkv"
EMBEDDER = "img_in"
COEFFICIENTS = [0.375, 0.75, 1.5, 3.0]


@pytest.fixture(scope="session")
def loading(comfy: Any) -> Any:
    return inside.pack("engine.models")


@pytest.fixture(params=["int8", "storage", "bf16"])
def fast(request: pytest.FixtureRequest, loading: Any, models: Path, monkeypatch: Any) -> Any:
    monkeypatch.setenv(inside.pack("engine.trial").VARIABLE, request.param)
    return loading.load_fast(models / "diffusion_models" / DEV, modulation=False)[0]


def written(models: Path, name: str, size: float, delta: loras.Delta | None = None) -> Path:
    """A LoRA of every layer whose change has the given size, relative to the weights of 0.05."""
    made = {}
    for layer, part in (delta or loras.everything(seed=3)).items():
        scale = size * 0.05 / float((part.up @ part.down).std())
        made[layer] = loras.Part(part.down, part.up * scale)
    path = models / "loras" / f"{name}.safetensors"
    loras.write({k: v.to(torch.bfloat16) for k, v in loras.native(made).items()}, path)
    return path


def on_the_hosted_model(models: Path, lora: Path, layer: str, coefficient: float) -> float:
    """What arrives of a LoRA when it is merged into the checkpoint's weight as it is done there."""
    merging, quantising = inside.pack("ops.hosted.merge"), inside.pack("ops.hosted.quantise")
    weight = load_file(models / "diffusion_models" / DEV)[f"{layer}.weight"].to(torch.bfloat16)
    state = load_file(lora)
    up, down = (state[f"diffusion_model.{layer}.lora_{side}.weight"] for side in "BA")
    base = quantising.quantise_weight(weight)
    merged = merging.merge(base, [merging.Part(up, down)], coefficient)
    change = up.double() @ down.double()
    effect = merged.dequantised().double() - base.dequantised().double()
    return float((effect * change).sum() / change.square().sum())


def applied(fast: Any, lora: Path, coefficient: float) -> tuple[Any, Any]:
    key = f"{lora.name} {lora.stat().st_mtime_ns}"
    made, _, fitted = inside.pack("engine.loras").apply(
        lora, fast, None, coefficient, as_hosted=key
    )
    return made, fitted.arrivals


@pytest.mark.parametrize("coefficient", COEFFICIENTS)
@pytest.mark.parametrize("size", [0.0075, 0.0125, 0.05])
def test_as_much_arrives_as_there(fast: Any, models: Path, size: float, coefficient: float) -> None:
    lora = written(models, "sized", size)
    _, arrivals = applied(fast, lora, coefficient)
    for layer in (QKV, "single_blocks.1.linear2", "double_blocks.1.img_mod.lin"):
        wanted = on_the_hosted_model(models, lora, layer, coefficient)
        made = arrivals.of(f"diffusion_model.{layer}.weight")
        assert made == pytest.approx(wanted, abs=0.03), layer
        assert size > 0.02 or coefficient > 1.5 or wanted < 0.95 * coefficient, "nothing is lost"


def test_what_arrives_is_what_runs(comfy: Any, fast: Any, models: Path) -> None:
    """Measured at a layer, in float32: the change at the strength that was found, no noise."""
    lora = written(models, "runs", 0.0125)
    made, arrivals = applied(fast, lora, 1.5)
    layer = fast.model.diffusion_model.get_submodule(QKV)
    tokens = torch.randn(512, shapes.HIDDEN, generator=torch.Generator().manual_seed(1))
    comfy.model_management.load_models_gpu([fast])
    before = layer(tokens)
    comfy.model_management.load_models_gpu([made])
    change = layer(tokens) - before
    state = load_file(lora)
    up, down = (state[f"diffusion_model.{QKV}.lora_{side}.weight"].float() for side in "BA")
    wanted = tokens @ down.T @ up.T
    gain = float((change * wanted).sum() / wanted.square().sum())
    noise = float((change - gain * wanted).norm() / wanted.norm())
    assert gain == pytest.approx(arrivals.of(f"diffusion_model.{QKV}.weight"), abs=0.02)
    assert noise < 0.1


def test_layers_that_are_not_rounded_there_get_all(fast: Any, models: Path) -> None:
    _, arrivals = applied(fast, written(models, "all", 0.005), 1.5)
    assert arrivals.of(f"diffusion_model.{EMBEDDER}.weight") == 1.5
    assert arrivals.of(f"diffusion_model.{QKV}.weight") < 0.9
    assert 0.3 < arrivals.mean < 1.2
    assert "as on the hosted model" in str(arrivals)


def test_q_k_and_v_of_one_weight_are_one_sum(fast: Any, models: Path) -> None:
    """The hosted model rounds the weight of all three once."""
    whole = written(models, "whole", 0.0125, {QKV: loras.blocks(seed=3)[QKV]})
    state = load_file(whole)
    up, down = (state[f"diffusion_model.{QKV}.lora_{side}.weight"] for side in "BA")
    apart = {}
    for index, name in enumerate("qkv"):
        module = f"transformer.transformer_blocks.0.attn.to_{name}"
        rows = slice(index * shapes.HIDDEN, (index + 1) * shapes.HIDDEN)
        apart[f"{module}.lora_B.weight"] = up[rows].contiguous()
        apart[f"{module}.lora_A.weight"] = down.clone()
    path = whole.with_name("apart.safetensors")
    loras.write(apart, path)
    name = f"diffusion_model.{QKV}.weight"
    strengths = [applied(fast, lora, 1.5)[1].of(name) for lora in (whole, path)]
    assert strengths[0] == pytest.approx(strengths[1], abs=1e-3)


def test_it_is_computed_once_for_file_model_and_strength(
    fast: Any, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    strength = inside.pack("ops.hosted.strength")
    real = strength.arriving
    monkeypatch.setattr(strength, "arriving", lambda *a, **k: calls.append(a) or real(*a, **k))
    lora = written(models, "once", 0.01)
    first = applied(fast, lora, 1.5)[1]
    count = len(calls)
    assert count
    assert applied(fast, lora, 1.5)[1] == first
    assert len(calls) == count
    applied(fast, lora, 0.75)
    assert len(calls) == 2 * count


def test_a_dense_change_is_known_too(fast: Any, models: Path) -> None:
    """A whole difference in place of two factors: the same change, the same strength."""
    lora = written(models, "dense", 0.0125, {QKV: loras.blocks(seed=3)[QKV]})
    state = load_file(lora)
    up, down = (state[f"diffusion_model.{QKV}.lora_{side}.weight"].float() for side in "BA")
    path = lora.with_name("diff.safetensors")
    loras.write({f"diffusion_model.{QKV}.diff": up @ down}, path)
    name = f"diffusion_model.{QKV}.weight"
    strengths = [applied(fast, one, 1.5)[1].of(name) for one in (lora, path)]
    assert strengths[0] == pytest.approx(strengths[1], abs=0.02)


def test_whole_is_whole(fast: Any, models: Path) -> None:
    apply = inside.pack("engine.loras").apply
    arrivals = apply(written(models, "as-it-is", 0.005), fast, None, 1.5)[2].arrivals
    assert arrivals.of(f"diffusion_model.{QKV}.weight") == 1.5
    assert arrivals.mean == 1.5
