"""One request through our workflow on a real ComfyUI, and through diffusers' pipelines.

    ours = draw(comfy, "text_to_image", request)
    theirs = reference("dev", comfy.models).draw(ours, request)
    assert_same(ours.latents, theirs.latents)

Both sides share weights, text embeddings, noise and the encoded picture: what remains to differ is
the sizes, the schedule, the sampling, the guidance and the mask. Latents are compared in the scale
that the transformer works in.
"""

from __future__ import annotations

import functools
import io
import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from diffusers.pipelines.flux import pipeline_flux, pipeline_flux_img2img, pipeline_flux_inpaint
from mini_flux.load_diffusers import Model, load_pipeline
from PIL import Image
from runtime.environment import ROOT
from runtime.session import Comfy
from torch import Tensor

from flux_hotswap.prediction.fill import Prompt, fill_prompt

TOLERANCE = 1e-5
"""How far two latents of the same picture may lie apart, in fp32."""

SHIFT, SCALE = 0.1159, 0.3611
"""Of FLUX's latents: the transformer sees (latent - SHIFT) * SCALE."""

PROMPT = "a photo of a lighthouse on a cliff at dusk"

Request = dict[str, Any]
Used = tuple[str, dict[str, Any]]
"""A LoRA's file, and further inputs of its node."""

log = logging.getLogger(__name__)


def assert_same(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    """Compare two tensors, value by value; `-rP --log-level=INFO` shows how far they are apart."""
    assert ours.shape == theirs.shape
    assert torch.isfinite(theirs).all(), "the reference itself is not finite"
    apart = (ours - theirs).abs().max().item()
    log.info("apart by %.1e of %.0e, values up to %.1f", apart, tolerance, theirs.abs().max())
    assert apart <= tolerance, f"{apart:.2e} apart, {tolerance:.0e} allowed"


# --- our side ---


@dataclass(frozen=True)
class Drawn:
    """What flowed through our workflow.

    Attributes:
        start: [B,16,h,w], the Latent node's: zeros, or the encoded picture.
        sampled: [B,16,h,w], the sampler's.
        final: [B,16,h,w], what would be decoded.
        noise: [B,16,h,w].
        mask: [1,1,h,w], which cells are repainted; None without a mask.
        sigmas: from the first step's to 0.
        embeds: [1,T,C] of T5.
        pooled: [1,C] of CLIP.
    """

    start: Tensor
    sampled: Tensor
    final: Tensor
    noise: Tensor
    mask: Tensor | None
    sigmas: Tensor
    embeds: Tensor
    pooled: Tensor

    @property
    def latents(self) -> Tensor:
        """What would be decoded, as the transformer sees it."""
        return scaled(self.final)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture in pixels."""
        height, width = self.final.shape[-2:]
        return 8 * width, 8 * height


def scaled(latents: Tensor) -> Tensor:
    """Latents of the VAE as the transformer sees them."""
    return (latents - SHIFT) * SCALE


def draw(comfy: Comfy, workflow: str, request: Mapping[str, Any]) -> Drawn:
    """Run a shipped API workflow up to its latents, which are saved instead of decoded."""
    prompt, node, final = _undecoded(workflow, request)
    name = f"parity-{uuid.uuid4().hex}"
    start = {
        "latent": [node["FluxHotswapLatent"], 0],
        "noise": [node["FluxHotswapNoise"], 0],
        "sigmas": [node["FluxHotswapSchedule"], 0],
    }
    sampled = {"latent": [node["SamplerCustomAdvanced"], 0]}
    text = {"conditioning": [node["FluxHotswapPrompt"], 0]}
    prompt |= {
        "save-start": _saving("TestSaveTensor", f"{name}-start", start),
        "save-sampled": _saving("TestSaveTensor", f"{name}-sampled", sampled),
        "save-final": _saving("TestSaveTensor", f"{name}-final", {"latent": final}),
        "save-text": _saving("TestSaveConditioning", f"{name}-text", text),
    }
    comfy.run(prompt)
    begun, text = comfy.saved(f"{name}-start"), comfy.saved(f"{name}-text")
    return Drawn(
        start=begun["latent"],
        sampled=comfy.saved(f"{name}-sampled")["latent"],
        final=comfy.saved(f"{name}-final")["latent"],
        noise=begun["noise"],
        mask=begun.get("noise_mask"),
        sigmas=begun["sigmas"],
        embeds=text["cond"],
        pooled=text["pooled_output"],
    )


def encode(comfy: Comfy, request: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """What the Prompt node makes of a request's text: [1,T,C] of T5 and [1,C] of CLIP."""
    prompt, node, _ = _undecoded("text_to_image", request)
    name = f"parity-{uuid.uuid4().hex}"
    text = {"conditioning": [node["FluxHotswapPrompt"], 0]}
    comfy.run(prompt | {"save-text": _saving("TestSaveConditioning", name, text)})
    saved = comfy.saved(name)
    return saved["cond"], saved["pooled_output"]


def _undecoded(
    workflow: str, request: Mapping[str, Any]
) -> tuple[Prompt, dict[str, str], list[Any]]:
    """A shipped workflow that asks for a request and shows nothing.

    Returns:
        The prompt, node ids by class, and the wire of the latents that would be decoded.
    """
    shipped = json.loads((ROOT / "workflows" / "api" / f"{workflow}.json").read_text("utf-8"))
    prompt = fill_prompt(shipped, {"prompt": PROMPT, "go_fast": False, **request})
    node = {entry["class_type"]: key for key, entry in prompt.items()}
    final = prompt[node["VAEDecode"]]["inputs"]["samples"]
    gone = {node["VAEDecode"]}
    for key, entry in prompt.items():  # a node comes after those that it is wired to
        wires = [value for value in entry["inputs"].values() if isinstance(value, list)]
        if any(source in gone for source, _ in wires):
            gone.add(key)
    return {key: entry for key, entry in prompt.items() if key not in gone}, node, final


def with_loras(prompt: Mapping[str, Any], used: Sequence[Used]) -> Prompt:
    """Return prompt with LoRA nodes, "lora0" and on, between the loader and what it feeds."""
    made = {key: node | {"inputs": dict(node["inputs"])} for key, node in prompt.items()}
    loader = next(key for key, node in made.items() if node["class_type"] == "FluxHotswapLoader")
    last: list[Any] = [loader, 0]
    added: Prompt = {}
    for index, (source, inputs) in enumerate(used):
        node = {"model": last, "source": source, **inputs}
        added[f"lora{index}"] = {"class_type": "FluxHotswapLora", "inputs": node}
        last = [f"lora{index}", 0]
    for node in made.values():
        for name, value in node["inputs"].items():
            if value == [loader, 0]:
                node["inputs"][name] = last
    return made | added


def _saving(kind: str, name: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {"class_type": kind, "inputs": {"filename": name, **inputs}}


def upload(comfy: Comfy, picture: Image.Image, name: str) -> str:
    """Put a picture into the server's input folder; what to write into the request."""
    return comfy.client.upload(f"{name}.png", png(picture))


def png(picture: Image.Image) -> bytes:
    """A picture as a file."""
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


# --- the reference ---


def hosted_picture(picture: Image.Image) -> Image.Image:
    """A picture as the hosted model brings it to its size, by its own rules."""
    width, height = picture.size
    shrink = min(1440 / width, 1440 / height, 1)
    if shrink < 1:
        width, height = int(width * shrink), int(height * shrink)
    width, height = -(-width // 16) * 16, -(-height // 16) * 16
    return picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)


def hosted_mask(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A mask as the hosted model hands it to diffusers, by its own rules."""
    return mask.convert("RGB").resize(size, Image.Resampling.NEAREST)


@dataclass(frozen=True)
class Reference:
    """What diffusers drew.

    Attributes:
        latents: [B,16,h,w], as the transformer sees them.
        sigmas: from the first step's to 0.
        steps: how often the transformer ran.
    """

    latents: Tensor
    sigmas: Tensor
    steps: int


class EncodedPicture:
    """Stands for the VAE of a pipeline: encodes the picture to latents that are there already."""

    def __init__(self) -> None:
        # Four levels: a latent pixel is 8 pixels wide.
        self.config = SimpleNamespace(
            block_out_channels=(1,) * 4,
            latent_channels=16,
            shift_factor=SHIFT,
            scaling_factor=SCALE,
        )
        self.latents = torch.empty(0)

    def encode(self, picture: Tensor) -> SimpleNamespace:
        """The latents, if the picture [B,3,H,W] has their size."""
        height, width = self.latents.shape[-2:]
        assert picture.shape == (1, 3, 8 * height, 8 * width)
        return SimpleNamespace(latents=self.latents)


class Pipelines:
    """diffusers' three pipelines of one model."""

    def __init__(self, model: Model, folder: Path) -> None:
        self.vae = EncodedPicture()
        self.text = load_pipeline(model, folder)
        parts: dict[str, Any] = dict.fromkeys(
            ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
        )
        parts |= {"vae": self.vae, "scheduler": self.text.scheduler}
        parts["transformer"] = self.text.transformer
        self.image = pipeline_flux_img2img.FluxImg2ImgPipeline(**parts)
        self.inpaint = pipeline_flux_inpaint.FluxInpaintPipeline(**parts)

    def draw(
        self,
        ours: Drawn,
        request: Mapping[str, Any],
        picture: Image.Image | None = None,
        mask: Image.Image | None = None,
    ) -> Reference:
        """Draw what a request asks for, from the embeddings, noise and start latents of ours."""
        batch = request.get("num_outputs", 1)
        size = ours.size
        module, more = pipeline_flux, {}
        pipe: Any = self.text
        if picture is not None:
            sized = hosted_picture(picture)
            size = sized.size
            more = {"image": sized, "strength": request["prompt_strength"]}
            module, pipe = pipeline_flux_img2img, self.image
            self.vae.latents = ours.start[:1]
        if mask is not None:
            more["mask_image"] = hosted_mask(mask, size)
            module, pipe = pipeline_flux_inpaint, self.inpaint
        width, height = size
        ran: list[int] = []

        def count(_pipe: Any, step: int, _time: Any, kept: dict[str, Any]) -> dict[str, Any]:
            ran.append(step)
            return kept

        def noise(shape: tuple[int, ...], **_: Any) -> Tensor:
            assert tuple(ours.noise.shape) == tuple(shape)
            return ours.noise

        pipe.set_progress_bar_config(disable=True)
        # The draw is the only thing of the pipeline that is replaced.
        with patch.object(module, "randn_tensor", noise):
            packed = pipe(
                prompt_embeds=ours.embeds.expand(batch, -1, -1),
                pooled_prompt_embeds=ours.pooled.expand(batch, -1),
                width=width,
                height=height,
                num_inference_steps=request["num_inference_steps"],
                guidance_scale=request.get("guidance_scale", 3.0),
                output_type="latent",
                callback_on_step_end=count,
                return_dict=False,
                **more,
            )[0]
        latents = pipe._unpack_latents(packed, height, width, 8)
        return Reference(latents, self.text.scheduler.sigmas[-len(ran) - 1 :], len(ran))


@functools.cache
def reference(model: Model, folder: Path) -> Pipelines:
    """The pipelines of a model; made once."""
    return Pipelines(model, folder)
