"""LoRAs of models whose layers are called like FLUX.1's, told apart by safe signs. No torch.

Some of their layers have FLUX.1's very names and sizes, so a part of such a file would apply and
spoil the picture. How many keys match is no sign: good files have keys that nothing is there for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from ..checkpoint.sizes import DOUBLE_BLOCKS, SINGLE_BLOCKS
from .names import is_text_name

_ARCHITECTURE: Final = ("modelspec.architecture", "ss_base_model_version")
"""Where trainers write into the head which model it was, in words of their own."""

_IN_WORDS: Final = (
    (r"qwen", "Qwen-Image"),
    (r"flux[-_. ]*2|klein", "FLUX.2"),
    # FLUX.1 with other blocks: what has the same number there is another one here.
    (r"\bflex[-_. ]*[12]", "Flex"),
    (r"longcat", "LongCat-Image"),
    (r"hunyuan", "HunyuanVideo"),
    (r"chroma", "Chroma"),
    (r"\bwan(?![a-z])", "Wan"),
    (r"\bltx", "LTX-Video"),
    (r"hidream", "HiDream"),
    (r"z[-_ ]?image", "Z-Image"),
    (r"lumina", "Lumina"),
    (r"aura[-_ ]?flow", "AuraFlow"),
    (r"pixart", "PixArt"),
    (r"cosmos", "Cosmos"),
    (r"stable-diffusion-xl|\bsdxl", "SDXL"),
    (r"stable-diffusion-3|\bsd[-_]?3", "Stable Diffusion 3"),
    # Only in these words: "sd_1.5" is also what trainers write where they know no better.
    (r"stable-diffusion-v[12]", "Stable Diffusion 1.x or 2.x"),
)
_WORDS: Final = tuple((re.compile(pattern), name) for pattern, name in _IN_WORDS)

_IN_NAMES: Final = (
    (r"(?:img|txt)_mlp[._]net[._]|(?:img|txt)_mod[._]1[._]", "Qwen-Image"),
    (r"to_qkv_mlp_proj|[._]linear_in[._]|(?:double|single)_stream_modulation", "FLUX.2"),
    (
        r"(?:img|txt)_mlp[._]fc[12][._]|(?:img|txt)_mod[._]linear[._]|modulation[._]linear[._]|token_refiner"
        r"|blocks\.\d+\.(?:img|txt)_attn_(?:qkv|proj)\.",
        "HunyuanVideo",
    ),
    (r"distilled_guidance_layer", "Chroma"),
    (r"(?:double|single)_stream_blocks", "HiDream"),
    (r"(?:noise|context)_refiner|(?:^|[._])layers[._]\d+[._](?:attention|feed_forward)", "Z-Image"),
    (
        # SDXL's have the same within blocks that go down and up.
        r"^(?:(?!(?:down|up|mid|input|output|middle)_block).)*blocks[._]\d+[._]attn2[._]",
        "a model with cross-attention, such as LTX-Video",
    ),
)
_NAMES: Final = tuple((re.compile(pattern), name) for pattern, name in _IN_NAMES)

_BLOCK: Final = re.compile(
    r"(?:(?P<single>single_)(?:transformer_)?|double_|(?<!single_)(?<!joint_)transformer_)"
    r"blocks[._](?P<number>\d+)[._]"
)

_ROWS: Final = {
    # FLUX.2's layers before the activation make a gate besides: rows by the width that goes in,
    # where FLUX.1 has 7 and 4.
    "linear1": 9,
    "img_mlp.0": 6,
    "txt_mlp.0": 6,
}

_IMAGE: Final = ("img_in", "img_in_proj", "x_embedder")
"""What FLUX.1's first layer is called; 64 numbers go in there."""
_CONTROL: Final = 128
"""With a control image beside the latent."""
_FILL: Final = 384
"""With a masked image and its mask."""

_SHAPES_OF_OTHERS: Final = (
    (r"ip_adapter|image_proj|ip_layers", "an IP-Adapter, not a LoRA. Choose a LoRA for FLUX.1."),
    (
        r"(?:^|\.)(?:double_blocks\.\d+\.img_attn\.qkv|single_blocks\.\d+\.linear1"
        r"|transformer_blocks\.\d+\.attn\.to_q)\.weight$",
        "a checkpoint or a part of one, not a LoRA. Put it into models/diffusion_models and choose "
        "it in the Loader.",
    ),
)
_SHAPES: Final = tuple((re.compile(pattern), words) for pattern, words in _SHAPES_OF_OTHERS)


def no_lora(names: Iterable[str]) -> str | None:
    """Return what a file is that is no LoRA, and what to do with it; None if that is not seen."""
    known = list(names)
    for pattern, words in _SHAPES:
        if any(pattern.search(name) for name in known):
            return words
    return None


def other_use(sizes: Mapping[str, tuple[int, int]]) -> str | None:
    """Return what a LoRA of FLUX.1 needs that it is not given here; None if there is nothing.

    Args:
        sizes: [rows, columns] of what its modules change, by their names.
    """
    for module, (_, width) in sizes.items():
        if re.sub(r"\W", "_", module).endswith(tuple(f"_{name}" for name in _IMAGE)):
            if width == _CONTROL:
                return "a control image (Canny, Depth)"
            if width == _FILL:
                return "the masked image of FLUX.1 Fill"
    return None


def other_model(
    names: Iterable[str],
    metadata: Mapping[str, str],
    sizes: Mapping[str, tuple[int, int]] | None = None,
) -> str | None:
    """Return the model that a file is made for if it is certainly not FLUX.1, else None.

    Args:
        names: of its tensors, as they are in the file.
        metadata: of its head.
        sizes: [rows, columns] of what its modules change, by their names.
    """
    known = [name for name in names if not is_text_name(name)]
    return _by_words(metadata) or _by_signs(known) or _by_sizes(sizes or {}) or _by_blocks(known)


def _by_words(metadata: Mapping[str, str]) -> str | None:
    for key in _ARCHITECTURE:
        said = metadata.get(key, "").lower()
        for pattern, name in _WORDS:
            if pattern.search(said):
                return name
    return None


def _by_signs(names: Iterable[str]) -> str | None:
    known = list(names)
    for pattern, name in _NAMES:
        if any(pattern.search(text) for text in known):
            return name
    return None


def _by_sizes(sizes: Mapping[str, tuple[int, int]]) -> str | None:
    for module, (rows, width) in sizes.items():
        for layer, theirs in _ROWS.items():
            same = re.sub(r"\W", "_", module).endswith(f"_{layer.replace('.', '_')}")
            if same and rows == theirs * width:
                return "FLUX.2"
    return None


def _by_blocks(names: Iterable[str]) -> str | None:
    """Qwen-Image has 60 blocks, HunyuanVideo 20 and 40; others are told by their numbers."""
    last = {"double": -1, "single": -1}
    for name in names:
        found = _BLOCK.search(name)
        if found:
            kind = "single" if found["single"] else "double"
            last[kind] = max(last[kind], int(found["number"]))
    double, single = last["double"] + 1, last["single"] + 1
    if double <= DOUBLE_BLOCKS and single <= SINGLE_BLOCKS:
        return None
    if single == 0 and double == 60:
        return "Qwen-Image"
    if (double, single) in ((20, 40), (20, 0), (0, 40)):
        return "HunyuanVideo"
    return f"a model with {double} double and {single} single blocks"
