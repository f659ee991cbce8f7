"""Every node alone, from its widgets: the same picture and the same record as by the request."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from mini_flux import loras
from PIL import Image
from runtime.environment import ROOT
from runtime.session import Comfy

from flux_hotswap.prediction.fill import Prompt, fill_prompt
from flux_hotswap.prediction.spec import FIELDS

BASE: dict[str, Any] = {"prompt": "a (red:1.3) star", "num_inference_steps": 2, "seed": 7}
BASE |= {"output_format": "png"}
TWO = {"lora": "alone-1.safetensors", "lora_scale": 0.7}
TWO |= {"extra_lora": "alone-2.safetensors", "extra_lora_scale": -0.5}
SMALL = {"aspect_ratio": "4:5", "megapixels": "0.25"}
CUSTOM = {"aspect_ratio": "custom", "width": 260, "height": 264}
REQUESTS: dict[str, dict[str, Any]] = {
    "fast": {**SMALL, **TWO},
    "bf16": {**CUSTOM, **TWO, "go_fast": False},
    "custom": {**CUSTOM, "guidance_scale": 5.5, "num_outputs": 2, "output_format": "webp"},
    "schnell": {**CUSTOM, "model": "schnell"},
    "picture": {"image": "alone.png", "prompt_strength": 0.6, **TWO},
    "strength 0": {"image": "alone.png", "prompt_strength": 0},
    "mask": {"image": "alone.png", "mask": "alone-mask.png", "prompt_strength": 0.9},
}
WIDGETS: dict[str, dict[str, str]] = {
    "FluxHotswapLoader": {"model": "model", "go_fast": "go_fast"},
    "FluxHotswapLora": {"source": "lora", "scale": "lora_scale"},
    "FluxHotswapPrompt": {"text": "prompt", "model": "model", "guidance": "guidance_scale"},
    "FluxHotswapLatent": {
        name: name
        for name in (
            "aspect_ratio",
            "megapixels",
            "width",
            "height",
            "num_outputs",
            "image",
            "mask",
        )
    },
    "FluxHotswapSchedule": {
        "model": "model",
        "steps": "num_inference_steps",
        "prompt_strength": "prompt_strength",
    },
    "FluxHotswapNoise": {"seed": "seed"},
    "FluxHotswapSafety": {"disable_safety_checker": "disable_safety_checker"},
    "FluxHotswapSave": {"output_format": "output_format", "output_quality": "output_quality"},
}
"""Inputs of each node by the field of the request that they hold."""


@pytest.fixture(scope="module", autouse=True)
def files(comfy: Comfy) -> None:
    for number in (1, 2):
        name = f"alone-{number}.safetensors"
        loras.write(loras.diffusers(loras.blocks()), comfy.server.models_dir / "loras" / name)
    across = np.linspace(0, 255, 120, dtype=np.uint8)[None].repeat(80, 0)
    comfy.client.upload("alone.png", png(np.stack([across, across[:, ::-1], across], -1)))
    checks = (np.indices((80, 120)).sum(0) // 40 % 2 * 255).astype(np.uint8)
    comfy.client.upload("alone-mask.png", png(checks))


def png(pixels: Any) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def taken_apart(prompt: Prompt) -> Prompt:
    """The graph with every field on a wire of its own, and no node that takes the request."""
    number = {field.name: index for index, field in enumerate(FIELDS)}
    made: Prompt = json.loads(json.dumps(prompt))
    made["fields"] = {"class_type": "FluxHotswapFields", "inputs": {"request": ["1", 0]}}
    ids = {node["class_type"]: key for key, node in made.items()}
    for kind, names in WIDGETS.items():
        inputs = made[ids[kind]]["inputs"]
        del inputs["request"]
        inputs |= {name: ["fields", number[field]] for name, field in names.items()}
    latent = ids["FluxHotswapLatent"]
    made[ids["FluxHotswapSchedule"]]["inputs"] |= {
        name: [latent, index] for index, name in enumerate(("width", "height", "has_image"), 1)
    }
    first = ids["FluxHotswapLora"]
    second = {
        "source": ["fields", number["extra_lora"]],
        "scale": ["fields", number["extra_lora_scale"]],
    }
    second |= {"model": [first, 0], "clip": [first, 1]}
    made["second"] = {"class_type": "FluxHotswapLora", "inputs": second}
    made[ids["BasicGuider"]]["inputs"]["model"] = ["second", 0]
    made[ids["FluxHotswapPrompt"]]["inputs"]["clip"] = ["second", 1]
    return made


@pytest.mark.parametrize("fields", REQUESTS.values(), ids=REQUESTS)
def test_the_same_picture_and_record(comfy: Comfy, fields: dict[str, Any]) -> None:
    shipped = json.loads((ROOT / "workflows" / "api" / "flux_lora_schema.json").read_text("utf-8"))
    prompt = fill_prompt(shipped, {**BASE, **fields})
    seen = []
    for graph in (prompt, taken_apart(prompt)):
        result = comfy.run(graph)
        pictures = []
        for entry in result.images():
            with Image.open(BytesIO(comfy.client.view(entry))) as picture:
                pictures.append((picture.format, picture.size, picture.tobytes()))
        (record,) = result.shown("flux_hotswap")
        # Why bf16 runs is known to the plan alone, which also tells it in its warnings.
        seen.append((pictures, {**record, "engine_reason": ""}))
    assert seen[0] == seen[1]
