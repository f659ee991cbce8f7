"""What another seed costs: nothing that does not depend on it is made anew."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mini_flux import loras
from runtime.environment import ROOT
from runtime.session import Comfy

from flux_hotswap.prediction.fill import Prompt, fill_prompt

ASK: dict[str, Any] = {"prompt": "a cat", "aspect_ratio": "custom", "width": 256, "height": 256}
ASK |= {"num_inference_steps": 1, "lora": "again-1.safetensors", "lora_scale": 0.5}
ASK |= {"extra_lora": "again-2.safetensors"}
MODEL, TEXT = "model", "text"


@pytest.fixture(scope="module", autouse=True)
def lora_files(comfy: Comfy) -> None:
    state = loras.diffusers(loras.blocks())
    for name in (ASK["lora"], ASK["extra_lora"]):
        loras.write(state, comfy.server.models_dir / "loras" / name)


def watched(**fields: Any) -> Prompt:
    """Return the shipped graph up to its latent, with a node that knows objects again."""
    shipped = json.loads((ROOT / "workflows" / "api" / "text_to_image.json").read_text("utf-8"))
    prompt = fill_prompt(shipped, {**ASK, **fields})
    gone = ("VAEDecode", "FluxHotswapSafety", "FluxHotswapSave")
    kept = {key: node for key, node in prompt.items() if node["class_type"] not in gone}
    guider = next(node for node in kept.values() if node["class_type"] == "BasicGuider")
    sampler = next(key for key, node in kept.items() if node["class_type"].startswith("SamplerC"))
    return kept | {
        "seen": {"class_type": "TestSeen", "inputs": guider["inputs"]},
        "latent": {
            "class_type": "TestSaveTensor",
            "inputs": {"latent": [sampler, 0], "filename": "again"},
        },
    }


def same(comfy: Comfy, **fields: Any) -> set[str]:
    """Run it; what was the same object as in the run before."""
    result = comfy.run(watched(**fields))
    assert "seen" in result.executed_nodes
    return set(result.shown("seen"))


def test_another_seed_keeps_loras_and_text(comfy: Comfy) -> None:
    same(comfy, seed=1)
    assert same(comfy, seed=2) == {MODEL, TEXT}
    assert same(comfy, seed=3, num_inference_steps=2) == {MODEL, TEXT}


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"prompt": "a dog"}, {MODEL}),
        ({"lora_scale": 0.6}, set()),
        ({"extra_lora_scale": 0.6}, set()),
        ({"extra_lora": None}, set()),
        ({"model": "schnell"}, set()),
    ],
    ids=["text", "strength", "strength of the second", "one LoRA less", "model"],
)
def test_what_changes_is_made_anew(comfy: Comfy, change: dict[str, Any], kept: set[str]) -> None:
    same(comfy, seed=11)
    same(comfy, seed=12)
    assert same(comfy, seed=13, **change) == kept


def test_a_file_that_is_another_one_is_applied_anew(comfy: Comfy) -> None:
    same(comfy, seed=21)
    loras.write(
        loras.diffusers({"double_blocks.0.img_mlp.0": loras.blocks()["double_blocks.0.img_mlp.0"]}),
        comfy.server.models_dir / "loras" / ASK["lora"],
    )
    assert same(comfy, seed=22) == set()
    assert same(comfy, seed=23) == {MODEL, TEXT}


def test_what_is_kept_draws_the_same(comfy: Comfy) -> None:
    """A run that takes from the last one ends as one that makes everything."""
    comfy.client.free()
    same(comfy, seed=31)
    fresh = comfy.saved("again")["latent"]
    same(comfy, seed=32)
    assert same(comfy, seed=31) == {MODEL, TEXT}
    again = comfy.saved("again")["latent"]
    assert again.equal(fresh)
    same(comfy, seed=31, lora_scale=0.9)
    assert not comfy.saved("again")["latent"].equal(fresh)
