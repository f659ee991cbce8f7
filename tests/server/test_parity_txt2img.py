"""Text to image draws what diffusers' FluxPipeline draws, through the real ComfyUI."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mini_flux.load_diffusers import Model
from parity import Drawn, Request, assert_same, draw, reference
from runtime.session import Comfy

Size = tuple[int, int]


def preset(
    model: Model, aspect_ratio: str, steps: int, megapixels: str = "0.25", **more: Any
) -> Request:
    return {
        "model": model,
        "aspect_ratio": aspect_ratio,
        "megapixels": megapixels,
        "num_inference_steps": steps,
        "seed": 42,
        **more,
    }


def custom(model: Model, width: int, height: int, steps: int, **more: Any) -> Request:
    size = {"width": width, "height": height}
    return preset(model, "custom", steps) | size | more


CASES: dict[str, tuple[Request, Size]] = {
    "dev 1:1, 4 steps": (preset("dev", "1:1", 4), (512, 512)),
    "dev 16:9, 3 steps, guidance 0": (preset("dev", "16:9", 3, guidance_scale=0), (672, 384)),
    "dev 21:9, 2 steps": (preset("dev", "21:9", 2), (768, 320)),
    "dev 3:2, 2 steps, guidance 10": (preset("dev", "3:2", 2, guidance_scale=10), (608, 416)),
    "dev 2:3, 2 steps, 2 outputs": (preset("dev", "2:3", 2, num_outputs=2), (416, 608)),
    "dev 4:5, 1 step": (preset("dev", "4:5", 1), (448, 544)),
    "dev 5:4, 5 steps": (preset("dev", "5:4", 5), (544, 448)),
    "dev 3:4, 2 steps": (preset("dev", "3:4", 2), (448, 576)),
    "dev 4:3, 2 steps": (preset("dev", "4:3", 2), (576, 448)),
    "dev 9:16, 2 steps": (preset("dev", "9:16", 2), (384, 672)),
    "dev 9:21, 3 steps": (preset("dev", "9:21", 3), (320, 768)),
    "dev 1 megapixel, 1:1, 1 step": (preset("dev", "1:1", 1, "1"), (1024, 1024)),
    "dev 256x256, 12 steps": (custom("dev", 256, 256, 12), (256, 256)),
    "dev 256x256, 50 steps, guidance 0": (
        custom("dev", 256, 256, 50, guidance_scale=0, seed=0),
        (256, 256),
    ),
    "dev 256x256, 6 steps, guidance 10": (
        custom("dev", 256, 256, 6, guidance_scale=10, seed=2**32 - 1),
        (256, 256),
    ),
    "dev 264x410, 4 steps": (custom("dev", 264, 410, 4), (272, 416)),
    "dev 400x257, 3 steps, 4 outputs": (custom("dev", 400, 257, 3, num_outputs=4), (400, 256)),
    "dev 256x320, 1 step, 3 outputs": (custom("dev", 256, 320, 1, num_outputs=3), (256, 320)),
    "schnell 1:1, 4 steps": (preset("schnell", "1:1", 4), (512, 512)),
    "schnell 21:9, 2 steps, 2 outputs": (preset("schnell", "21:9", 2, num_outputs=2), (768, 320)),
    "schnell 9:16, 1 step, guidance 10": (
        preset("schnell", "9:16", 1, guidance_scale=10),
        (384, 672),
    ),
    "schnell 256x256, 28 steps": (custom("schnell", 256, 256, 28), (256, 256)),
    "schnell 256x256, 50 steps": (custom("schnell", 256, 256, 50, seed=2**64 - 1), (256, 256)),
    "schnell 257x399, 3 steps, 4 outputs": (
        custom("schnell", 257, 399, 3, num_outputs=4),
        (256, 400),
    ),
}


@pytest.mark.parametrize(("asked", "size"), CASES.values(), ids=CASES)
def test_latents_equal_those_of_diffusers(comfy: Comfy, asked: Request, size: Size) -> None:
    ours = draw(comfy, "text_to_image", asked)
    theirs = reference(asked["model"], comfy.models).draw(ours, asked)
    assert ours.size == size
    assert len(ours.final) == asked.get("num_outputs", 1)
    assert len(ours.sigmas) - 1 == theirs.steps == asked["num_inference_steps"]
    assert_same(ours.sigmas, theirs.sigmas, 1e-6)
    assert_same(ours.latents, theirs.latents)


@pytest.mark.parametrize("model", ["dev", "schnell"])
def test_an_output_does_not_depend_on_how_many_there_are(comfy: Comfy, model: Model) -> None:
    batches = [
        draw(comfy, "text_to_image", custom(model, 272, 256, 4, num_outputs=count))
        for count in (1, 2, 3, 4)
    ]
    largest = batches[-1]
    for batch in batches[:-1]:
        count = len(batch.final)
        assert torch.equal(batch.noise, largest.noise[:count])
        assert_same(batch.latents, largest.latents[:count])
    for one in range(4):
        for other in range(one):
            assert (largest.latents[one] - largest.latents[other]).abs().max() > 1


def test_the_noise_is_the_hosted_generators_first_draw(comfy: Comfy) -> None:
    drawn = draw(comfy, "text_to_image", custom("schnell", 256, 256, 1))
    begin = [0.1943359375, 2.15625, -0.171875, 0.84765625, -1.921875, 0.65234375]
    assert drawn.noise[0, 0, 0, :6].tolist() == begin


def guided(comfy: Comfy, model: Model, guidance: float) -> Drawn:
    return draw(comfy, "text_to_image", custom(model, 256, 256, 2, guidance_scale=guidance))


def test_guidance_steers_dev_and_schnell_ignores_it(comfy: Comfy) -> None:
    dev = [guided(comfy, "dev", guidance).latents for guidance in (0, 3, 10)]
    assert (dev[0] - dev[1]).abs().max() > 1e-2
    assert (dev[1] - dev[2]).abs().max() > 1e-2
    schnell = [guided(comfy, "schnell", guidance).latents for guidance in (0, 10)]
    assert torch.equal(*schnell)
