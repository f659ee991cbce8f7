"""FLUX.1 and its text encoders as a table: every weight, and what LoRA files call its layers.

Without ComfyUI and without a checkpoint, this tells what of a file fits. ComfyUI's own table, made
from a model, has the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

from ..checkpoint.layout import in_diffusers, names_for
from ..checkpoint.sizes import DOUBLE_BLOCKS, FLUX1, SINGLE_BLOCKS

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

_WIDTH: Final = FLUX1.hidden
_CLIP, _CLIP_LAYERS, _CLIP_WORDS, _CLIP_LENGTH = FLUX1.pooled, 12, 49408, 77
_T5, _T5_MLP, _T5_LAYERS, _T5_WORDS = FLUX1.text, 10240, 24, 32128

MODEL: Final = "diffusion_model."
_CLIP_NAME, _T5_NAME = "clip_l.transformer.", "t5xxl.transformer."


@lru_cache(maxsize=1)
def shapes() -> Shapes:
    """Return the shapes of all weights by the names that ComfyUI's core has for them."""
    return {
        **{f"{MODEL}{name}": shape for name, shape in _model()},
        **{f"{_CLIP_NAME}{name}": shape for name, shape in _clip()},
        **{f"{_T5_NAME}{name}": shape for name, shape in _t5()},
    }


@lru_cache(maxsize=1)
def key_map() -> dict[str, Any]:
    """Return the weights, or some of their rows, by the names of modules.

    Rows are told as the core does: (name, (0, start, length)).
    """
    made: dict[str, Any] = {}
    for weight, shape in shapes().items():
        if weight.startswith(MODEL):
            made |= _of_the_model(weight, shape)
        else:
            made |= dict.fromkeys(_of_an_encoder(weight), weight)
    return made


def part_of(weight: str) -> str:
    """Return which part of the pipeline a weight is in, in words."""
    for start, words in _WORDS.items():
        if weight.startswith(start):
            return words
    return "embedders"


_WORDS: Final = {
    f"{MODEL}double_blocks.": "double blocks",
    f"{MODEL}single_blocks.": "single blocks",
    f"{MODEL}final_layer.": "last layer",
    _CLIP_NAME: "CLIP",
    _T5_NAME: "T5",
}


# --- the weights ---


def _linear(name: str, rows: int, columns: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (rows, columns)
    yield f"{name}.bias", (rows,)


def _model() -> Iterator[tuple[str, Shape]]:
    names = names_for(DOUBLE_BLOCKS, SINGLE_BLOCKS, guided=True)
    for name in names.outside:
        yield from _linear(name, *FLUX1.outside(name))
    for name in names.linears:
        yield from _linear(name, *FLUX1.in_block(name))
    for name in names.norms:
        yield f"{name}.scale", (FLUX1.head,)


def _clip() -> Iterator[tuple[str, Shape]]:
    w = _CLIP
    yield "text_model.embeddings.token_embedding.weight", (_CLIP_WORDS, w)
    yield "text_model.embeddings.position_embedding.weight", (_CLIP_LENGTH, w)
    for index in range(_CLIP_LAYERS):
        layer = f"text_model.encoder.layers.{index}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{layer}.self_attn.{name}", w, w)
        yield from _linear(f"{layer}.mlp.fc1", 4 * w, w)
        yield from _linear(f"{layer}.mlp.fc2", w, 4 * w)
        for name in ("layer_norm1", "layer_norm2"):
            yield f"{layer}.{name}.weight", (w,)
            yield f"{layer}.{name}.bias", (w,)
    yield "text_model.final_layer_norm.weight", (w,)
    yield "text_model.final_layer_norm.bias", (w,)
    yield "text_projection.weight", (w, w)


def _t5() -> Iterator[tuple[str, Shape]]:
    yield "shared.weight", (_T5_WORDS, _T5)
    for index in range(_T5_LAYERS):
        block = f"encoder.block.{index}.layer"
        for letter in "qkvo":
            yield f"{block}.0.SelfAttention.{letter}.weight", (_T5, _T5)
        if index == 0:
            yield f"{block}.0.SelfAttention.relative_attention_bias.weight", (32, 64)
        yield f"{block}.0.layer_norm.weight", (_T5,)
        for letter in ("wi_0", "wi_1"):
            yield f"{block}.1.DenseReluDense.{letter}.weight", (_T5_MLP, _T5)
        yield f"{block}.1.DenseReluDense.wo.weight", (_T5, _T5_MLP)
        yield f"{block}.1.layer_norm.weight", (_T5,)
    yield "encoder.final_layer_norm.weight", (_T5,)


# --- what files call them ---


def _of_the_model(weight: str, shape: Shape) -> dict[str, Any]:
    module, _, kind = weight.rpartition(".")
    name = module.removeprefix(MODEL)
    made: dict[str, Any] = {module if kind == "weight" else weight: weight}
    if kind == "weight":
        made[f"lora_unet_{name.replace('.', '_')}"] = weight
    if kind == "bias":
        return made
    if name.endswith(".linear1"):
        made[f"{module}_qkv"] = (weight, (0, 0, 3 * _WIDTH))
    parts = in_diffusers(name)
    start = 0
    for part in parts:
        # Of a layer in parts the last one, an MLP's, has the rows that are left.
        rows = _WIDTH if part != parts[-1] else shape[0] - start
        place: Any = weight if len(parts) == 1 else (weight, (0, start, rows))
        start += rows
        made[f"transformer.{part}"] = place
        for prefix in ("lora_transformer_", "lycoris_"):
            made[f"{prefix}{part.replace('.', '_')}"] = place
    return made


def _of_an_encoder(weight: str) -> Iterator[str]:
    module, _, kind = weight.rpartition(".")
    if kind != "weight":
        return
    yield f"text_encoders.{module}"
    if module.startswith(_T5_NAME):
        name = module.removeprefix(_T5_NAME).replace(".", "_")
        yield from (f"lora_te{number}_{name}" for number in (2, 3))
        return
    name = module.removeprefix(_CLIP_NAME)
    if name == "text_projection":
        yield "lora_te1_text_projection"
    if ".self_attn." in name or ".mlp." in name:
        yield f"text_encoder.{name}"
        yield from (f"{start}_{name.replace('.', '_')}" for start in ("lora_te", "lora_te1"))
