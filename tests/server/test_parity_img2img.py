"""Image to image and inpainting draw what diffusers' pipelines draw, through the real ComfyUI.

The mask that diffusers gets comes from the same file by the hosted model's own rules, and its own
mask processor cuts it; none of our code takes part in that.
"""

from __future__ import annotations

import uuid
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from mini_flux.load_diffusers import Model
from parity import (
    Drawn,
    Request,
    assert_same,
    draw,
    hosted_mask,
    hosted_picture,
    reference,
    scaled,
    upload,
)
from PIL import Image, ImageDraw, ImageFilter
from runtime.session import Comfy

Size = tuple[int, int]

WORKFLOW = "flux_lora_schema"


def picture_of(size: Size) -> Image.Image:
    """Soft colours that differ from place to place."""
    grain = np.random.default_rng(1).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(grain).resize(size, Image.Resampling.BICUBIC)


# --- masks ---


def box(size: Size, *corners: int) -> Image.Image:
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rectangle(corners, fill=255)
    return mask


def ramp(size: Size) -> Image.Image:
    """From black at the left to white at the right."""
    return Image.linear_gradient("L").rotate(90).resize(size)


def blurred(size: Size) -> Image.Image:
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).ellipse((40, 30, size[0] - 50, size[1] - 20), fill=255)
    return mask.filter(ImageFilter.GaussianBlur(20))


def half_grey(size: Size) -> Image.Image:
    """127 is kept, 128 is repainted."""
    mask = Image.new("L", size, 127)
    mask.paste(128, (0, 0, size[0] // 2, size[1]))
    return mask


def dots(size: Size) -> Image.Image:
    """Single white pixels: each on the grid repaints a cell, the others do nothing."""
    mask = Image.new("L", size)
    for x in range(0, size[0], 24):
        mask.putpixel((x, 64), 255)
        mask.putpixel((x, 131), 255)
    return mask


def coloured(size: Size) -> Image.Image:
    """Stripes whose grey is 76, 150, 29, 226 and 105."""
    mask = Image.new("RGB", size)
    pen = ImageDraw.Draw(mask)
    for index, colour in enumerate(("red", "lime", "blue", "yellow", "magenta")):
        pen.rectangle((index * 50, 0, index * 50 + 49, size[1]), fill=colour)
    return mask


def see_through(size: Size) -> Image.Image:
    """White and black that are partly transparent; alpha counts for nothing."""
    mask = blurred(size).convert("RGBA")
    mask.putalpha(ramp(size))
    return mask


# --- the cases ---


class Case(NamedTuple):
    asked: Request
    picture: Size = (256, 256)
    mask: Image.Image | None = None


def ask(model: Model, steps: int, strength: float, **more: Any) -> Request:
    return {
        "model": model,
        "num_inference_steps": steps,
        "prompt_strength": strength,
        "seed": 42,
        **more,
    }


SQUARE = (256, 256)
TALL, WIDE = (200, 330), (417, 256)
PICTURES: dict[str, Case] = {
    "dev 1 of 28 steps, 0.01": Case(ask("dev", 28, 0.01)),
    "dev 10 of 28 steps, 0.35": Case(ask("dev", 28, 0.35)),
    "dev 5 of 50 steps, 0.1": Case(ask("dev", 50, 0.1)),
    "dev 8 of 10 steps, 0.8": Case(ask("dev", 10, 0.8, guidance_scale=10)),
    "dev 9 of 10 steps, 0.9": Case(ask("dev", 10, 0.9, seed=0)),
    "dev 4 of 4 steps, 1": Case(ask("dev", 4, 1, guidance_scale=0)),
    "dev 1 of 1 step, 0.01": Case(ask("dev", 1, 0.01)),
    "dev tall, 3 of 5 steps": Case(ask("dev", 5, 0.6), TALL),
    "dev wide, 2 outputs": Case(ask("dev", 4, 0.75, num_outputs=2), WIDE),
    "dev long, shrunk to 1440": Case(ask("dev", 3, 0.5), (2000, 90)),
    "dev of 10x10 pixels": Case(ask("dev", 4, 0.8), (10, 10)),
    "schnell 3 of 4 steps, 0.75": Case(ask("schnell", 4, 0.75)),
    "schnell 4 of 4 steps, 0.76": Case(ask("schnell", 4, 0.76)),
    "schnell 1 of 4 steps, 0.1": Case(ask("schnell", 4, 0.1)),
    "schnell 34 of 50 steps, 0.68": Case(ask("schnell", 50, 0.68)),
    "schnell wide, 4 outputs": Case(ask("schnell", 4, 0.5, num_outputs=4), WIDE),
}
MASKS: dict[str, Case] = {
    "dev box on the grid": Case(ask("dev", 6, 0.8), mask=box(SQUARE, 64, 64, 191, 127)),
    "dev box off the grid": Case(ask("dev", 6, 0.8), mask=box(SQUARE, 61, 67, 190, 131)),
    "dev 14 of 28 steps": Case(ask("dev", 28, 0.5), mask=box(SQUARE, 0, 100, 255, 255)),
    "dev all steps, 1": Case(ask("dev", 4, 1), mask=ramp(SQUARE)),
    "dev one step, 0.01": Case(ask("dev", 28, 0.01), mask=blurred(SQUARE)),
    "dev grey 127 and 128": Case(ask("dev", 3, 0.7), mask=half_grey(SQUARE)),
    "dev tall, soft": Case(ask("dev", 4, 0.75), TALL, blurred(TALL)),
    "dev wide, ramp, 2 outputs": Case(ask("dev", 4, 0.8, num_outputs=2), WIDE, ramp(WIDE)),
    "dev mask of another size": Case(ask("dev", 4, 0.8), WIDE, blurred((300, 500))),
    "dev small mask": Case(ask("dev", 4, 0.8), SQUARE, box((20, 16), 3, 4, 9, 11)),
    "dev all white": Case(ask("dev", 4, 0.8), mask=Image.new("1", SQUARE, 1)),
    "dev all black": Case(ask("dev", 3, 0.8), mask=Image.new("L", SQUARE)),
    "schnell coloured stripes": Case(ask("schnell", 4, 0.75), mask=coloured(SQUARE)),
    "schnell dots": Case(ask("schnell", 4, 1), mask=dots(SQUARE)),
    "schnell transparent mask": Case(ask("schnell", 4, 0.9), mask=see_through(SQUARE)),
    "schnell 40 of 50 steps": Case(ask("schnell", 50, 0.8), mask=box(SQUARE, 9, 9, 99, 255)),
    "schnell tall, 3 outputs": Case(ask("schnell", 4, 0.5, num_outputs=3), TALL, ramp(TALL)),
}


def draw_case(comfy: Comfy, case: Case) -> Drawn:
    name = uuid.uuid4().hex
    asked = case.asked | {"image": upload(comfy, picture_of(case.picture), name)}
    if case.mask is not None:
        asked["mask"] = upload(comfy, case.mask, f"{name}-mask")
    return draw(comfy, WORKFLOW, asked)


def assert_same_as_diffusers(comfy: Comfy, case: Case, ours: Drawn) -> None:
    asked, picture = case.asked, picture_of(case.picture)
    theirs = reference(asked["model"], comfy.models).draw(ours, asked, picture, case.mask)
    assert ours.size == hosted_picture(picture).size
    assert len(ours.start) == asked.get("num_outputs", 1)
    assert torch.equal(ours.start, ours.start[:1].expand_as(ours.start))
    assert len(ours.sigmas) - 1 == theirs.steps
    assert_same(ours.sigmas, theirs.sigmas, 1e-6)
    assert_same(ours.latents, theirs.latents)


@pytest.mark.parametrize("case", PICTURES.values(), ids=PICTURES)
def test_image_to_image_equals_diffusers(comfy: Comfy, case: Case) -> None:
    assert_same_as_diffusers(comfy, case, draw_case(comfy, case))


@pytest.mark.parametrize("case", MASKS.values(), ids=MASKS)
def test_inpainting_equals_diffusers_and_keeps_what_is_black(comfy: Comfy, case: Case) -> None:
    ours = draw_case(comfy, case)
    assert_same_as_diffusers(comfy, case, ours)
    assert case.mask is not None
    grey = hosted_mask(case.mask, ours.size).convert("L")
    repainted = torch.from_numpy(np.asarray(grey)[::8, ::8] >= 128)
    assert ours.mask is not None
    assert torch.equal(ours.mask[0, 0] == 1, repainted)
    # Bit for bit, not nearly.
    assert torch.equal(ours.final[..., ~repainted], ours.start[..., ~repainted])
    assert torch.equal(ours.final[..., repainted], ours.sampled[..., repainted])


@pytest.mark.parametrize("mask", [None, box(SQUARE, 0, 0, 127, 255)], ids=["picture", "masked"])
@pytest.mark.parametrize("model", ["dev", "schnell"])
def test_strength_0_leaves_the_encoded_picture(
    comfy: Comfy, model: Model, mask: Image.Image | None
) -> None:
    ours = draw_case(comfy, Case(ask(model, 4, 0, num_outputs=2), mask=mask))
    assert ours.sigmas.tolist() == [0]
    # ComfyUI takes latents into the sampler's scale and back, which costs the last bit.
    assert_same(ours.latents, scaled(ours.start), 1e-6)


def test_the_noise_is_the_hosted_generators_second_draw(comfy: Comfy) -> None:
    one, four = (
        draw_case(comfy, Case(ask("schnell", 1, 1, num_outputs=count))).noise for count in (1, 4)
    )
    begin = [0.138671875, -0.1083984375, -0.71875, 0.7578125, 0.37109375, -1.0078125]
    assert one[0, 0, 0, :6].tolist() == begin
    assert torch.equal(one, four[:1])


@pytest.mark.parametrize("size", [(256, 256), (250, 190), (417, 256), (2000, 90), (10, 10)])
def test_the_picture_is_encoded_as_the_hosted_model_sizes_it(comfy: Comfy, size: Size) -> None:
    picture = picture_of(size)
    ours = draw_case(comfy, Case(ask("schnell", 1, 0), size))
    name = uuid.uuid4().hex
    prompt = {
        "picture": node("LoadImage", image=upload(comfy, hosted_picture(picture), name)),
        "vae": node("VAELoader", vae_name="ae.safetensors"),
        "encoded": node("VAEEncode", pixels=["picture", 0], vae=["vae", 0]),
        "saved": node("TestSaveTensor", latent=["encoded", 0], filename=name),
    }
    comfy.run(prompt)
    assert torch.equal(ours.start, comfy.saved(name)["latent"])


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}
