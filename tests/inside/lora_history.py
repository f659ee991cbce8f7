"""What is made of a LoRA does not depend on what ran before it on the same model.

ComfyUI patches the weights that all clones share; whatever we compute from a weight has to look at
the one that was loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mini_flux import loras
from runtime import inside
from runtime.lora_states import DEV, QKV, H, drawn

NATIVE = f"diffusion_model.{QKV}"
TOKENS = drawn(64, H, size=1.0)
KINDS: dict[str, dict[str, torch.Tensor]] = {
    "LoRA": {"lora_up.weight": drawn(3 * H, 4), "lora_down.weight": drawn(4, H)},
    "DoRA": {
        "lora_up.weight": drawn(3 * H, 4),
        "lora_down.weight": drawn(4, H),
        "dora_scale": torch.ones(3 * H, 1),
    },
    "OFT": {"oft_blocks": drawn(24, H // 8, H // 8)},
}


@pytest.fixture(params=["bf16", "int8", "storage", "fp8"])
def loaded(request: pytest.FixtureRequest, comfy: Any, models: Path) -> Iterator[Callable[[], Any]]:
    """Loads the model with an engine, each time anew."""
    path = models / "diffusion_models" / DEV
    load = inside.pack("engine.models").load
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setenv(inside.pack("engine.trial").VARIABLE, request.param)
        yield lambda: load(path, "dev", go_fast=True, modulation="bf16")[0]
    comfy.model_management.unload_all_models()


def of_the_core(model: Any) -> Any:
    """The model with a strong LoRA that ComfyUI's own node puts on it."""
    import comfy.sd

    state = loras.native(loras.everything(seed=3))
    return comfy.sd.load_lora_for_models(model, None, state, 1.0, 0)[0]


def made_of(comfy: Any, model: Any, path: Path) -> tuple[Any, Any, Any]:
    """What arrives, what the layer holds, and what it makes, with our LoRA on a model."""
    beside = inside.pack("engine.beside")
    made, _, fitted = inside.pack("engine.loras").apply(path, model, None, 1.5, as_hosted="key")
    carried = made.get_attachment(beside.INJECTION)
    sides = () if carried is None else carried.sides.get(NATIVE, ())
    comfy.model_management.load_models_gpu([made])
    layer = made.model.diffusion_model.get_submodule(QKV)
    product = layer(TOKENS.to(beside.dtype_of(made))).float()
    comfy.model_management.load_models_gpu([model])
    return str(fitted.arrivals), [type(side).__name__ for side in sides], product


@pytest.mark.parametrize("on", ["the model", "the other LoRA"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_ran_before_does_not_count(
    comfy: Any, loaded: Callable[[], Any], models: Path, kind: str, on: str
) -> None:
    path = models / "loras" / "ours.safetensors"
    loras.write({f"{NATIVE}.{slot}": part for slot, part in KINDS[kind].items()}, path)
    found = []
    for before in (False, True):
        plain = loaded()
        other = of_the_core(plain)
        if before:
            comfy.model_management.load_models_gpu([other])
        found.append(made_of(comfy, other if on == "the other LoRA" else plain, path))
        comfy.model_management.unload_all_models()
    (arrives, sides, product), (again, sides_again, product_again) = found
    assert (again, sides_again) == (arrives, sides)
    assert torch.equal(product_again, product)
