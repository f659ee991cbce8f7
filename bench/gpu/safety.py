"""Stage 4: the hosted safety networks at their real size, in fp16 against float32."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from PIL import Image
from runtime import inside
from torch import Tensor

from .kit import Kit

PICTURES = 64
NEAR = 0.002
"""Two steps of the scores, which are rounded to three decimals."""


def run(kit: Kit) -> None:
    """Compare scores of random pictures; the thresholds lie in their middle."""
    pictures = [picture(seed) for seed in range(4 if kit.small else PICTURES)]
    compvis, falcon = networks(small=kit.small)
    exact = scores(kit, compvis, pictures, torch.float32)
    threshold = exact.median(dim=0).values
    half = torch.float16 if kit.device.type == "cuda" else torch.bfloat16
    made = scores(kit, compvis, pictures, half)
    flipped = (exact > threshold) != (made > threshold)
    far = bool((flipped & ((exact - threshold).abs() > NEAR)).any())
    worst = float((exact - made).abs().max())
    kit.note("CompVis: verdicts that flip", int(flipped.sum()), f"of {flipped.numel()}",
             predicted=f"only within {NEAR} of a threshold",
             holds=None if half == torch.bfloat16 else not far, worst=worst)  # fmt: skip
    labels = [logits(kit, falcon, pictures, dtype) for dtype in (torch.float32, half)]
    changed = int((labels[0].argmax(1) != labels[1].argmax(1)).sum())
    kit.note("Falconsai: labels that flip", changed, f"of {len(pictures)}",
             worst=float((labels[0] - labels[1]).abs().max()))  # fmt: skip


def picture(seed: int) -> Image.Image:
    """Return a picture of smooth random colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((512, 512), Image.Resampling.BICUBIC)


def networks(*, small: bool) -> tuple[Any, Any]:
    """Return both with seeded random weights."""
    of, vision = inside.pack("ops.safety.networks"), inside.pack("ops.safety.vision")
    clip, vit = vision.Sizes(1024, 4096, 24, 14, 257), vision.Sizes(768, 3072, 12, 16, 197)
    if small:
        clip = vit = vision.Sizes(64, 128, 1, 32, 50)
    torch.manual_seed(8)
    pair = of.CompVis(clip, 768, 17, 3), of.Falcon(vit, 2)
    for network in pair:
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.03)
        network.eval().requires_grad_(False)
    return pair


@torch.inference_mode()
def scores(kit: Kit, network: Any, pictures: list[Image.Image], dtype: torch.dtype) -> Tensor:
    """Return the cosines of pictures and concepts [pictures,17]."""
    prepare = inside.pack("ops.safety.prepare")
    ready = copy.deepcopy(network).to(kit.device, dtype)
    normalise = torch.nn.functional.normalize
    rows = []
    for one in pictures:
        embed = ready(prepare.for_compvis(one).to(kit.device, dtype)).float()
        rows.append(normalise(embed) @ normalise(ready.concept_embeds.float()).T)
    return torch.cat(rows).cpu()


@torch.inference_mode()
def logits(kit: Kit, network: Any, pictures: list[Image.Image], dtype: torch.dtype) -> Tensor:
    """Return the logits [pictures,2]."""
    prepare = inside.pack("ops.safety.prepare")
    ready = copy.deepcopy(network).to(kit.device, dtype)
    made = [ready(prepare.for_falcon(one).to(kit.device, dtype)).float() for one in pictures]
    return torch.cat(made).cpu()
