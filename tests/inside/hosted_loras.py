"""LoRAs of every kind on engine fp8: merged into the weight, and out again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hosted_vectors import DTYPES, SAID, file_of, sha, tensors
from runtime import inside
from runtime.lora_states import DEV, KINDS, NATIVE, PROJ, State, changes
from safetensors.torch import save_file

WEIGHT = f"diffusion_model.{PROJ}.weight"
RECORDED: dict[str, Any] = SAID["lora"]


def load(path: Path) -> Any:
    options = {"go_fast": True, "modulation": "bf16", "engine": "fp8"}
    return inside.pack("engine.models").load(path, "dev", **options)[0]


@pytest.fixture(scope="module")
def fast(comfy: Any, models: Path) -> Any:
    return load(models / "diffusion_models" / DEV)


def merged(model: Any) -> torch.Tensor:
    """A clone's weight as it computes with it, [N,K] float32."""
    data, reciprocal = (
        model.get_model_object(f"diffusion_model.{PROJ}.{name}")
        for name in ("weight", "scale_reciprocal")
    )
    assert data.dtype == torch.float8_e4m3fn
    return data.to(torch.float32) * reciprocal


def told(model: Any) -> dict[str, list[object]]:
    """A clone's weights as the hosted code told its own, by the names of RECORDED's layers."""
    found: dict[str, list[object]] = {}
    for layer, name in RECORDED["layers"].items():
        weight, scale = (
            model.get_model_object(f"diffusion_model.{name}.{field}")
            for field in ("weight", "scale")
        )
        found[layer] = [sha(weight), float(scale)]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_merged(
    fast: Any, applied: Any, weights: State, caplog: Any, tmp_path: Path, kind: str
) -> None:
    state = {f"{NATIVE}.{name}": tensor for name, tensor in KINDS[kind].items()}
    path = tmp_path / "one.safetensors"
    save_file(state, path)
    before = merged(fast)

    def change(strength: float) -> torch.Tensor:
        return changes(applied(state, strength)[0], weights, caplog)[f"{PROJ}.weight"]

    # Changes much smaller than a step of e4m3 fall back, there and here: such are made larger.
    strength = max(1.0, 0.2 * float(before.norm() / change(1.0).norm()))
    wanted = change(strength)
    made, _, fitted = inside.pack("engine.loras").apply(path, fast, None, strength)
    assert fitted.merged
    assert fitted.fit.matched == len(state)
    effect = merged(made) - before
    gain = float((effect * wanted).sum() / wanted.square().sum())
    step = 2.0**-4  # the largest rounding of e4m3, against the number itself
    assert gain == pytest.approx(1, abs=0.1)
    assert float((effect - wanted).norm() / (before + wanted).norm()) < step


def test_a_bias_goes_with_it(fast: Any, comfy: Any, tmp_path: Path) -> None:
    state = {f"{NATIVE}.{name}": tensor for name, tensor in KINDS["difference"].items()}
    path = tmp_path / "one.safetensors"
    save_file(state, path)
    made = inside.pack("engine.loras").apply(path, fast, None, 0.5)[0]
    layer = fast.model.diffusion_model.get_submodule(PROJ)
    before = sha(layer.weight), layer.bias.clone(), float(layer.scale)
    comfy.model_management.load_models_gpu([made])
    moved = layer.bias - before[1]
    assert torch.allclose(moved.float(), 0.5 * state[f"{NATIVE}.diff_b"], atol=0.01)
    assert sha(layer.weight) != before[0]
    comfy.model_management.unload_all_models()
    assert (sha(layer.weight), float(layer.scale)) == (before[0], before[2])
    assert torch.equal(layer.bias, before[1])


def test_two_are_merged_one_after_the_other(fast: Any, tmp_path: Path) -> None:
    """The second on top of what the first left, which is about what both add when alone."""
    apply = inside.pack("engine.loras").apply
    paths = []
    for name in ("pair", "LoKr"):
        paths.append(tmp_path / f"{name}.safetensors")
        save_file({f"{NATIVE}.{k}": v for k, v in KINDS[name].items()}, paths[-1])
    first = apply(paths[0], fast, None, 1.0)[0]
    both = apply(paths[1], first, None, 1.0)[0]
    alone = apply(paths[1], fast, None, 1.0)[0]
    assert first.object_patches[WEIGHT] is not both.object_patches[WEIGHT]
    moved = (merged(both) - merged(first)) - (merged(alone) - merged(fast))
    rounding = 0.02  # with half of either LoRA it is more
    assert float(moved.norm() / merged(fast).norm()) < rounding
    assert first.patches_uuid != both.patches_uuid != fast.patches_uuid


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_of_the_hosted_codes_own(comfy: Any, tmp_path: Path, dtype: str) -> None:
    """With what that code ran with, each step is its own, bit for bit."""
    path = tmp_path / "hosted.safetensors"
    path.write_bytes(file_of("flux1-dev"))
    model, states = load(path), RECORDED["states"][dtype]
    assert told(model) == states["before"]
    made = model
    for which, state in (("main", "after main"), ("extra", "after main, then extra")):
        start = f"lora/{dtype}/{which}/"
        lora = tmp_path / f"{which}.safetensors"
        save_file({k[len(start) :]: v for k, v in tensors().items() if k.startswith(start)}, lora)
        coefficient = RECORDED["coefficients"][which]
        made = inside.pack("engine.loras").apply(lora, made, None, coefficient)[0]
        assert told(made) == states[state]
    assert told(model) == states["after removing main"]
