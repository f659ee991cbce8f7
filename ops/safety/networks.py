"""The CompVis checker and the Falconsai classifier, loaded from their published files."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from ...errors import SafetyError
from .decide import Verdict, two_stages
from .prepare import SIDE, for_compvis, for_falcon
from .vision import CLIP, VIT, Sizes, Tower

LABELS = ("normal", "nsfw")
_CARE = 0.01
"""Added to every later score of a picture once a special-care concept matches."""

_NAMES_COMPVIS = (
    (r"^(vision_model\.)+", "tower."),
    (r"^tower\.embeddings\.class_embedding$", "tower.cls"),
    (r"^tower\.embeddings\.patch_embedding\.", "tower.patch."),
    (r"^tower\.embeddings\.position_embedding\.weight$", "tower.position"),
    (r"^tower\.pre_layrnorm\.", "tower.first_norm."),
    (r"^tower\.post_layernorm\.", "tower.norm."),
    (r"^tower\.encoder\.layers\.", "tower.blocks."),
    (r"\.self_attn\.([qkv])_proj\.", r".\1."),
    (r"\.self_attn\.out_proj\.", ".out."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"\.mlp\.fc", ".fc"),
)
_NAMES_FALCON = (
    (r"^vit\.embeddings\.cls_token$", "tower.cls"),
    (r"^vit\.embeddings\.patch_embeddings\.projection\.", "tower.patch."),
    (r"^vit\.embeddings\.position_embeddings$", "tower.position"),
    (r"^vit\.layernorm\.", "tower.norm."),
    (r"^vit\.encoder\.layer\.", "tower.blocks."),
    (r"\.attention\.attention\.([qkv])(?:uery|ey|alue)\.", r".\1."),
    (r"\.attention\.output\.dense\.", ".out."),
    (r"\.intermediate\.dense\.", ".fc1."),
    (r"\.output\.dense\.", ".fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
)
_UNUSED = re.compile(r"\.position_ids$")  # a buffer in files of old transformers versions

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Concepts:
    """How close a picture is to the concepts; a score above 0 is a match."""

    special: tuple[float, ...]
    scores: tuple[float, ...]

    @property
    def flagged(self) -> bool:
        """Whether any of the 17 concepts matches; a score that is no number counts as a match."""
        return any(not score <= 0 for score in self.scores)

    @property
    def text(self) -> str:
        """The result, for the report."""
        matches = [str(index) for index, score in enumerate(self.scores) if not score <= 0]
        found = f"concepts {', '.join(matches)}" if matches else "no concept"
        care = sum(not score <= 0 for score in self.special)
        return f"{found}, highest score {max(self.scores):.3f}" + (", special care" * (care > 0))


class CompVis(nn.Module):
    """CLIP's vision tower and a projection, compared with fixed concept vectors."""

    def __init__(self, sizes: Sizes, projection: int, concepts: int, special: int) -> None:
        super().__init__()
        self.tower = Tower(sizes, CLIP)
        self.visual_projection = nn.Linear(sizes.width, projection, bias=False)
        self.concept_embeds = nn.Parameter(torch.empty(concepts, projection))
        self.concept_embeds_weights = nn.Parameter(torch.empty(concepts))
        self.special_care_embeds = nn.Parameter(torch.empty(special, projection))
        self.special_care_embeds_weights = nn.Parameter(torch.empty(special))

    def forward(self, pixels: Tensor) -> Tensor:
        """Map [B,3,224,224] to [B,P]."""
        return self.visual_projection(self.tower(pixels))

    @torch.inference_mode()
    def judge(self, picture: Image.Image) -> Concepts:
        """Compare an RGB picture with the concepts."""
        embed = self(_input(self, for_compvis(picture)))
        special = _closeness(embed, self.special_care_embeds)
        plain = _closeness(embed, self.concept_embeds)
        return rule(
            special - _numbers(self.special_care_embeds_weights),
            plain - _numbers(self.concept_embeds_weights),
        )


class Falcon(nn.Module):
    """A ViT with two labels, normal and nsfw."""

    def __init__(self, sizes: Sizes, labels: int) -> None:
        super().__init__()
        self.tower = Tower(sizes, VIT)
        self.classifier = nn.Linear(sizes.width, labels)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map [B,3,224,224] to logits [B,2]."""
        return self.classifier(self.tower(pixels))

    @torch.inference_mode()
    def judge(self, picture: Image.Image) -> str:
        """Return the likelier label of an RGB picture.

        Raises:
            SafetyError: the network's output is no number.
        """
        logits = self(_input(self, for_falcon(picture)))[0].float()
        if not bool(torch.isfinite(logits).all()):
            raise SafetyError(
                "The second network's output is not a number. Choose another checker."
            )
        return LABELS[int(logits.argmax())]


class Hosted:
    """The two networks as one checker."""

    def __init__(self, compvis: CompVis, falcon: Falcon) -> None:
        self.compvis = compvis
        self.falcon = falcon

    def __call__(self, picture: Image.Image) -> Verdict:
        """Judge an RGB picture: CompVis flags, Falconsai may overrule."""
        concepts = self.compvis.judge(picture)
        return two_stages(concepts.flagged, concepts.text, lambda: self.falcon.judge(picture))


def rule(special: np.ndarray, plain: np.ndarray) -> Concepts:
    """Turn distances above the thresholds into scores.

    Args:
        special: [3] float32, in order; a match raises everything after it.
        plain: [17] float32.
    """
    care = np.float32(0)
    special_scores = []
    for value in special:
        special_scores.append(float(np.round(value + care, 3)))
        if not special_scores[-1] <= 0:
            care = np.float32(_CARE)
    return Concepts(tuple(special_scores), tuple(np.round(plain + care, 3).astype(float).tolist()))


def load_compvis(path: Path, dtype: torch.dtype = torch.float32) -> CompVis:
    """Load the CompVis checker from its safetensors file, on the CPU.

    Raises:
        SafetyError: the file is broken or is another network.
    """
    weights = _read(path, _NAMES_COMPVIS)

    def build(sizes: Sizes) -> CompVis:
        concepts, projection = weights["concept_embeds"].shape
        return CompVis(sizes, projection, concepts, len(weights["special_care_embeds"]))

    return _assemble(path, weights, build, dtype)


def load_falcon(path: Path, dtype: torch.dtype = torch.float32) -> Falcon:
    """Load the Falconsai classifier from its safetensors file, on the CPU.

    Raises:
        SafetyError: the file is broken or is another network.
    """
    weights = _read(path, _NAMES_FALCON)

    def build(sizes: Sizes) -> Falcon:
        if (labels := len(weights["classifier.weight"])) != len(LABELS):
            raise SafetyError(f"it knows {labels} labels instead of {len(LABELS)}")
        return Falcon(sizes, labels)

    return _assemble(path, weights, build, dtype)


@torch.inference_mode(False)  # inference tensors could not be moved later, outside that mode
def _read(path: Path, names: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise _broken(path, str(error)) from error
    weights: dict[str, Tensor] = {}
    for name, value in stored.items():
        if not _UNUSED.search(name):
            for pattern, replacement in names:
                name = re.sub(pattern, replacement, name)
            weights[name] = value
    return weights


@torch.inference_mode(False)
def _assemble(
    path: Path,
    weights: dict[str, Tensor],
    build: Callable[[Sizes], Network],
    dtype: torch.dtype,
) -> Network:
    try:
        for name in ("tower.cls", "tower.position"):  # stored with axes of length 1 in ViT files
            weights[name] = weights[name].reshape(-1, weights["tower.patch.weight"].shape[0])
        weights["tower.cls"] = weights["tower.cls"][0]
        tower = {k[6:]: value for k, value in weights.items() if k.startswith("tower.")}
        sizes = Sizes.of(tower)
        if sizes.tokens != (SIDE // sizes.patch) ** 2 + 1:
            raise SafetyError(f"it is not made for pictures of {SIDE}x{SIDE}")
        with torch.device("meta"):
            network = build(sizes)
        network.load_state_dict({k: v.to(dtype) for k, v in weights.items()}, assign=True)
    except (KeyError, ValueError, RuntimeError) as error:
        kind = "" if isinstance(error, SafetyError) else f"{type(error).__name__}: "
        raise _broken(path, f"{kind}{error!s:.300}") from error
    return network.eval().requires_grad_(False)


def _broken(path: Path, detail: str) -> SafetyError:
    return SafetyError(
        f"{path.name} is not the safety network it should be ({detail}). Delete it so that it is "
        "fetched again, or put the right file there."
    )


def _input(network: nn.Module, pixels: Tensor) -> Tensor:
    weight = next(network.parameters())
    return pixels.to(weight.device, weight.dtype)


def _closeness(embed: Tensor, concepts: Tensor) -> np.ndarray:
    """Return the cosine of [1,P] with each of [K,P], as [K] float32."""
    normalised = functional.normalize(embed.float()), functional.normalize(concepts.float())
    return (normalised[0] @ normalised[1].T)[0].cpu().numpy()


def _numbers(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()
