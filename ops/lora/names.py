"""The names in a FLUX LoRA file, brought to those that ComfyUI's core knows. Names only, no torch.

Every trainer has its own spelling for the same modules. The core reads these:

- `diffusion_model.double_blocks.0.img_attn.qkv`, the names of the published FLUX files
- `transformer.transformer_blocks.0.attn.to_q`, those of diffusers
- `lora_unet_double_blocks_0_img_attn_qkv` (kohya), `lora_transformer_...` (OneTrainer) and
  `lycoris_...` (SimpleTuner), which need nothing here
- `text_encoder.text_model...`, `lora_te1_...`, `text_encoders.t5xxl.transformer...`
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeVar

from ...errors import LoraError

T = TypeVar("T")

# How the names of a module begin, without any prefix.
_NATIVE = (
    "double_blocks. single_blocks. img_in. txt_in. time_in. vector_in. guidance_in. final_layer."
)
_DIFFUSERS = (
    "transformer_blocks. single_transformer_blocks. x_embedder. context_embedder. "
    "time_text_embed. norm_out. proj_out."
)
_STARTS: Final = {
    **dict.fromkeys(_NATIVE.split(), "diffusion_model."),
    **dict.fromkeys(_DIFFUSERS.split(), "transformer."),
}
_PREFIX: Final = re.compile(r"(?:(?:base_model\.model|model|diffusion_model|transformer|unet)\.)+")

_XLABS: Final = re.compile(
    r"(?P<block>(?:double|single)_blocks\.\d+)\.processor\."
    r"(?P<part>(?:qkv|proj)_lora[12]?)\.(?P<side>down|up)\.weight"
)
_XLABS_PARTS: Final = {
    "qkv_lora1": "img_attn.qkv",
    "qkv_lora2": "txt_attn.qkv",
    "proj_lora1": "img_attn.proj",
    "proj_lora2": "txt_attn.proj",
    "qkv_lora": "linear1_qkv",  # the core's name for the rows of linear1 above those of the MLP
    "proj_lora": "linear2",
}

_TEXT: Final = (
    (re.compile(r"text_encoder\.encoder\.layers\."), "text_encoder.text_model.encoder.layers."),
    (
        re.compile(r"text_encoder_2\.encoder\.block\."),
        "text_encoders.t5xxl.transformer.encoder.block.",
    ),
)
_TEXT_STARTS: Final = ("lora_te", "text_encoder", "text_model.", "clip_l.", "t5xxl.")
_ADAPTER: Final = re.compile(r"\.lora_([AB])\.(?!weight$|bias$)[^.]+\.(weight|bias)$")
_UNDERSCORED: Final = re.compile(
    r"lora_unet_(?=(?:single_)?transformer_blocks_\d+_(?:attn|ff|norm|proj)_)"
)


def convert(state: Mapping[str, T]) -> dict[str, T]:
    """Return a file's tensors under names that ComfyUI's core knows; other names stay.

    Raises:
        ValueError: two names of the file mean the same tensor.
    """
    made: dict[str, T] = {}
    for name, tensor in state.items():
        target = core_name(name)
        if target in made:
            raise LoraError(f"it names {target} twice, the second time as {name}")
        made[target] = tensor
    return made


def core_name(name: str) -> str:
    """Return the name by which ComfyUI's core knows what a file calls name."""
    name = _ADAPTER.sub(r".lora_\1.\2", name)
    if is_text_name(name):
        for pattern, text in _TEXT:
            name = pattern.sub(text, name)
        return name
    found = _PREFIX.match(name)
    bare = name[found.end() :] if found else name
    block = _XLABS.fullmatch(bare)
    if block is not None and block["part"] in _XLABS_PARTS:
        module = f"{block['block']}.{_XLABS_PARTS[block['part']]}"
        return f"diffusion_model.{module}.lora_{block['side']}.weight"
    prefix = _STARTS.get(bare.partition(".")[0] + ".")
    if prefix is not None:
        return prefix + bare
    return _UNDERSCORED.sub("lora_transformer_", name)


def is_text_name(name: str) -> bool:
    """Whether a name is one of a text encoder's."""
    return name.removeprefix("base_model.model.").startswith(_TEXT_STARTS)
