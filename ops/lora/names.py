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
from collections.abc import Iterable, Mapping
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
_PREFIX: Final = re.compile(
    r"(?:(?:base_model\.model|model|diffusion_model|transformer|unet|module|pipe)\.)+"
)
_COMPILED: Final = "_orig_mod."
"""What torch.compile puts before the names of what it compiled, a model or each of its blocks."""

_XLABS: Final = re.compile(
    r"(?P<block>(?:double|single)_blocks\.\d+)\.processor\."
    r"(?P<part>(?:qkv|proj)_lora[12]?)\.(?:(?P<side>down|up)\.weight|alpha)"
)
_XLABS_PARTS: Final = {
    "qkv_lora1": "img_attn.qkv",
    "qkv_lora2": "txt_attn.qkv",
    "proj_lora1": "img_attn.proj",
    "proj_lora2": "txt_attn.proj",
    "qkv_lora": "linear1_qkv",  # the core's name for the rows of linear1 above those of the MLP
    "proj_lora": "linear2",
}

_CLIP, _T5 = "text_encoder.text_model.", "text_encoders.t5xxl.transformer."
_TEXT: Final = (
    (
        re.compile(r"(?:base_model\.model\.)?text_encoder\.encoder\.layers\."),
        f"{_CLIP}encoder.layers.",
    ),
    (
        re.compile(r"(?:base_model\.model\.)?text_encoder_2\.encoder\.block\."),
        f"{_T5}encoder.block.",
    ),
    # PEFT, around an encoder alone
    (re.compile(r"(?:base_model\.model\.)?text_model\."), _CLIP),
    (re.compile(r"(?:base_model\.model\.)?encoder\.block\."), f"{_T5}encoder.block."),
    # OMI
    (re.compile(r"clip_l\.(?:transformer\.)?"), "text_encoders.clip_l.transformer."),
    (re.compile(r"t5(?:xxl)?\.(?:transformer\.)?"), _T5),
    (re.compile(r"base_model\.model\.(?=text_encoder)"), ""),
)
_TEXT_STARTS: Final = (
    *("lora_te", "text_encoder", "text_model.", "clip_l.", "t5xxl.", "t5.", "encoder.block."),
)
_ADAPTER: Final = re.compile(r"\.lora_([AB])\.(?!weight$|bias$)[^.]+\.(weight|bias)$")
_UNDERSCORED: Final = re.compile(
    r"lora_unet_(?=(?:single_)?transformer_blocks_\d+_|(?:x|context)_embedder\.|time_text_embed_"
    r"|norm_out_|proj_out\.)"
)
_TRAILING: Final = re.compile(r"(?<=[^_.])_(?=\.(?:lora_|alpha$|dora_scale$|diff))")
_PROCESSOR: Final = re.compile(
    r"\.processor\.(?P<layer>to_(?:q|k|v|out|add_out)|add_[qkv]_proj)_lora\.(?P<side>down|up)\.weight$"
)

# Published layers that diffusers has in parts: of the q, k, v and MLP rows.
_QKV = {"img_attn.qkv": "to_q to_k to_v", "txt_attn.qkv": "add_q_proj add_k_proj add_v_proj"}
_PARTS: Final = {
    **{layer: tuple(f"attn.{part}" for part in parts.split()) for layer, parts in _QKV.items()},
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
}
_OMI: Final = re.compile(
    r"(?P<kind>double|single)_blocks\.(?P<block>\d+)\."
    r"(?P<layer>(?:img|txt)_attn\.qkv|linear1)\.(?P<part>[0-3])(?P<rest>\..+)"
)
_UNMERGED: Final = re.compile(
    r"(?P<module>(?:lora_unet_|(?:.+\.)?)(?P<kind>double|single)_blocks[._](?P<block>\d+)[._]"
    r"(?P<layer>(?:img|txt)_attn[._]qkv|linear1))\.(?P<side>lora_(?:down|up))\.(?P<part>[0-3])\.weight"
)


def convert(state: Mapping[str, T]) -> dict[str, T]:
    """Return a file's tensors under names that ComfyUI's core knows; other names stay.

    Raises:
        ValueError: two names of the file mean the same tensor.
    """
    return {target: state[name] for target, name in sources(state).items()}


def sources(names: Iterable[str]) -> dict[str, str]:
    """Return a file's names by those that ComfyUI's core knows.

    The core's are in the file's order. One tensor can be for several modules: kohya's `split_qkv`,
    before it is merged, has a pair for each of q, k and v, and one alpha for all.

    Raises:
        ValueError: two names of the file mean the same tensor.
    """
    known = list(names)
    parts: dict[str, dict[str, None]] = {}
    for name in known:
        found = _UNMERGED.fullmatch(name)
        if found is not None:
            parts.setdefault(found["module"], {})[_part_of(found)] = None
    made: dict[str, str] = {}
    for name in known:
        module, dot, slot = name.rpartition(".")
        shared = parts.get(module) if slot == "alpha" else None
        for target in [core_name(name)] if shared is None else [f"{p}{dot}{slot}" for p in shared]:
            if target in made:
                raise LoraError(f"it names {target} twice, the second time as {name}")
            made[target] = name
    return made


def core_name(name: str) -> str:
    """Return the name by which ComfyUI's core knows what a file calls name."""
    name = _ADAPTER.sub(r".lora_\1.\2", name.replace(_COMPILED, ""))
    if is_text_name(name):
        for pattern, text in _TEXT:
            found = pattern.match(name)
            if found:
                return text + name[found.end() :]
        return name
    found = _UNMERGED.fullmatch(name)
    if found is not None:
        return f"{_part_of(found)}.{found['side']}.weight"
    name = _TRAILING.sub("", name)
    return _bare_name(name) or _UNDERSCORED.sub("lora_transformer_", name)


def _bare_name(name: str) -> str | None:
    """Return the core's name for a published or diffusers' one, whatever stands before it."""
    found = _PREFIX.match(name)
    bare = name[found.end() :] if found else name
    block = _XLABS.fullmatch(bare)
    if block is not None and block["part"] in _XLABS_PARTS:
        module = f"diffusion_model.{block['block']}.{_XLABS_PARTS[block['part']]}"
        return f"{module}.lora_{block['side']}.weight" if block["side"] else f"{module}.alpha"
    block = _OMI.fullmatch(bare)
    if block is not None:
        return _part_of(block) + block["rest"]
    prefix = _STARTS.get(bare.partition(".")[0] + ".")
    if prefix is None:
        return None
    if prefix == "diffusion_model.":
        return prefix + bare.replace("img_in.proj.", "img_in.")
    return prefix + _PROCESSOR.sub(_without_processor, bare)


def _without_processor(found: re.Match[str]) -> str:
    layer = "to_out.0" if found["layer"] == "to_out" else found["layer"]
    return f".{layer}.lora_{found['side']}.weight"


def _part_of(found: re.Match[str]) -> str:
    """Return what diffusers calls a part of one of the published layers."""
    parts = _PARTS[found["layer"].replace("_qkv", ".qkv")]
    single = "single_" if found["kind"] == "single" else ""
    part = parts[min(int(found["part"]), len(parts) - 1)]
    return f"transformer.{single}transformer_blocks.{found['block']}.{part}"


def is_text_name(name: str) -> bool:
    """Whether a name is one of a text encoder's."""
    return name.removeprefix("base_model.model.").startswith(_TEXT_STARTS)
