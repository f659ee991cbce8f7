"""The same request as two graphs: ours as shipped, and the nearest one of ComfyUI's own nodes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flux_hotswap.prediction.fill import Prompt, fill_prompt

ROOT = Path(__file__).resolve().parents[1]
T5_TOKENS = 512
"""Our Prompt node pads to as many, as the hosted model does; ComfyUI's own text nodes to 256."""


@dataclass(frozen=True)
class Ask:
    """What is drawn.

    Attributes:
        seed: every prompt has another one, or ComfyUI takes it from its cache.
        side: width and height in pixels.
        loras: names of files in the loras folder.
        tokens: of T5, in the stock graph; 256 is what its text node does by itself.
    """

    seed: int
    side: int = 512
    steps: int = 8
    batch: int = 1
    loras: tuple[str, ...] = ()
    tokens: int = T5_TOKENS


TEXT = "a photo of a lighthouse on a cliff at dusk, waves, warm light in the window"


def ours(ask: Ask) -> Prompt:
    """Return the shipped text_to_image workflow, asked for png and without a safety check.

    The stock graph has no safety check and writes png only. A custom size runs in bf16, as there.
    """
    shipped = json.loads((ROOT / "workflows" / "api" / "text_to_image.json").read_text("utf-8"))
    fields: dict[str, Any] = {
        "prompt": TEXT,
        "aspect_ratio": "custom",
        "width": ask.side,
        "height": ask.side,
        "num_inference_steps": ask.steps,
        "num_outputs": ask.batch,
        "seed": ask.seed,
        "output_format": "png",
        "disable_safety_checker": True,
    }
    fields |= dict(zip(("lora", "extra_lora"), ask.loras, strict=False))
    return fill_prompt(shipped, fields)


def stock(ask: Ask) -> Prompt:
    """Return the same with ComfyUI's own nodes."""
    side, model, clip = ask.side, ["unet", 0], ["clip", 0]
    graph: dict[str, tuple[str, dict[str, Any]]] = {
        "unet": (
            "UNETLoader",
            {"unet_name": "flux1-dev.safetensors", "weight_dtype": "default"},
        ),
        "clip": (
            "DualCLIPLoader",
            {
                "clip_name1": "clip_l.safetensors",
                "clip_name2": "t5xxl_fp16.safetensors",
                "type": "flux",
            },
        ),
        "vae": ("VAELoader", {"vae_name": "ae.safetensors"}),
    }
    for index, name in enumerate(ask.loras):
        inputs = {"model": model, "clip": clip, "lora_name": name}
        inputs |= {"strength_model": 1.0, "strength_clip": 1.0}
        graph[f"lora{index}"] = ("LoraLoader", inputs)
        model, clip = [f"lora{index}", 0], [f"lora{index}", 1]
    length = {"min_padding": 0, "min_length": ask.tokens}
    shift = {"max_shift": 1.15, "base_shift": 0.5, "width": side, "height": side}
    simple = {"scheduler": "simple", "steps": ask.steps, "denoise": 1.0}
    parts = {"noise": "noise", "guider": "guider", "sampler": "sampler", "sigmas": "sigmas"}
    graph |= {
        "length": ("T5TokenizerOptions", {"clip": clip, **length}),
        "text": ("CLIPTextEncode", {"clip": ["length", 0], "text": TEXT}),
        "guidance": ("FluxGuidance", {"conditioning": ["text", 0], "guidance": 3.0}),
        "shift": ("ModelSamplingFlux", {"model": model, **shift}),
        "guider": ("BasicGuider", {"model": ["shift", 0], "conditioning": ["guidance", 0]}),
        "sigmas": ("BasicScheduler", {"model": ["shift", 0], **simple}),
        "sampler": ("KSamplerSelect", {"sampler_name": "euler"}),
        "noise": ("RandomNoise", {"noise_seed": ask.seed}),
        "latent": (
            "EmptySD3LatentImage",
            {"width": side, "height": side, "batch_size": ask.batch},
        ),
        "sample": (
            "SamplerCustomAdvanced",
            {name: [node, 0] for name, node in parts.items()} | {"latent_image": ["latent", 0]},
        ),
        "decode": ("VAEDecode", {"samples": ["sample", 0], "vae": ["vae", 0]}),
        "save": ("SaveImage", {"images": ["decode", 0], "filename_prefix": "stock"}),
    }
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in graph.items()}
