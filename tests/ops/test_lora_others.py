"""LoRAs of other models whose layers are called like FLUX.1's: told apart, and the model named."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from mini_flux import loras
from torch import Tensor

from flux_hotswap.ops.lora.names import convert
from flux_hotswap.ops.lora.others import other_model, other_use
from flux_hotswap.ops.lora.parts import split
from flux_hotswap.ops.lora.sizes import sizes_of

WIDTH = 3072


def names(*modules: str) -> list[str]:
    return [f"{module}.lora_{side}.weight" for module in modules for side in "AB"]


def counted(pattern: str, count: int) -> list[str]:
    return names(*(pattern.format(number) for number in range(count)))


DOUBLE = "transformer.transformer_blocks.{}.attn.to_q"
SINGLE = "transformer.single_transformer_blocks.{}.attn.to_q"
NATIVE = "diffusion_model.double_blocks.{}.img_attn.qkv"

OTHERS: dict[str, tuple[str, Iterable[str]]] = {
    "Qwen-Image by its blocks": ("Qwen-Image", counted(DOUBLE, 60)),
    "Qwen-Image, its MLP": (
        "Qwen-Image",
        names(DOUBLE.format(0), "transformer.transformer_blocks.0.img_mlp.net.2"),
    ),
    "Qwen-Image, its modulation": ("Qwen-Image", names("transformer_blocks.0.txt_mod.1")),
    "Qwen-Image, kohya": ("Qwen-Image", names("lora_unet_transformer_blocks_3_img_mod_1")),
    "FLUX.2, diffusers": ("FLUX.2", names("transformer.transformer_blocks.0.ff.linear_in")),
    "FLUX.2, single": (
        "FLUX.2",
        names("transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj"),
    ),
    "FLUX.2, modulation": ("FLUX.2", names("diffusion_model.double_stream_modulation_img.lin")),
    "HunyuanVideo": (
        "HunyuanVideo",
        names("transformer.double_blocks.0.img_attn_qkv", "transformer.single_blocks.1.linear1"),
    ),
    "HunyuanVideo, kohya": ("HunyuanVideo", names("lora_unet_double_blocks_0_img_mlp_fc1")),
    "HunyuanVideo, modulation": ("HunyuanVideo", names("lora_unet_double_blocks_0_img_mod_linear")),
    "HunyuanVideo, diffusers": ("HunyuanVideo", counted(DOUBLE, 20) + counted(SINGLE, 40)),
    "HunyuanVideo, its refiner": (
        "HunyuanVideo",
        names("transformer.context_embedder.token_refiner.proj_in"),
    ),
    "Chroma": ("Chroma", names(NATIVE.format(0), "distilled_guidance_layer.in_proj")),
    "LTX-Video": ("LTX-Video", names("transformer.transformer_blocks.0.attn2.to_q")),
    "LTX-Video, native": ("LTX-Video", names("diffusion_model.transformer_blocks.0.attn2.to_q")),
    "HiDream": ("HiDream", names("double_stream_blocks.0.block.attn1.to_q")),
    "Z-Image": ("Z-Image", names("diffusion_model.layers.0.attention.to_q")),
    "too many blocks": ("with 57 double and 0 single", counted(NATIVE, 57)),
    "too many single blocks": (
        "with 0 double and 48 single",
        counted("lora_unet_single_blocks_{}_linear2", 48),
    ),
}


@pytest.mark.parametrize(("model", "keys"), OTHERS.values(), ids=list(OTHERS))
def test_another_model_is_named(model: str, keys: Iterable[str]) -> None:
    assert model in (other_model(keys, {}) or "")


FLUX_WORDS = [
    "flux-1-dev/lora",
    "flux-1-schnell",
    "Flux.1-dev/lora",
    "flux1",
    "flux_dev",
    "flux-1-kontext-dev",
    "FLUX",
    "sd_1.5",
    "flux-flexible",
    "something new",
    "",
]
WORDS = {
    "qwen_image": "Qwen-Image",
    "flux-2-dev/lora": "FLUX.2",
    "flux2": "FLUX.2",
    "FLUX.2-klein": "FLUX.2",
    "hunyuan-video": "HunyuanVideo",
    "flex2": "Flex",
    "flex.1-alpha": "Flex",
    "longcat_image-final/lora": "LongCat-Image",
    "chroma": "Chroma",
    "wan2.1": "Wan",
    "ltxv": "LTX-Video",
    "z-image/lora": "Z-Image",
    "stable-diffusion-xl-v1-base/lora": "SDXL",
    "sdxl_base_v1-0": "SDXL",
    "stable-diffusion-3-medium": "Stable Diffusion 3",
    "stable-diffusion-v1/lora": "Stable Diffusion 1.x or 2.x",
}


@pytest.mark.parametrize("key", ["modelspec.architecture", "ss_base_model_version"])
@pytest.mark.parametrize(("words", "model"), WORDS.items(), ids=list(WORDS))
def test_the_heads_own_words_count(key: str, words: str, model: str) -> None:
    assert other_model(names(NATIVE.format(0)), {key: words}) == model


@pytest.mark.parametrize("words", FLUX_WORDS)
def test_words_for_flux_and_unknown_ones_are_no_sign(words: str) -> None:
    head = {"modelspec.architecture": words, "ss_base_model_version": words, "note": "qwen"}
    assert other_model(names(NATIVE.format(0)), head) is None


@pytest.mark.parametrize("family", loras.FAMILIES.values(), ids=list(loras.FAMILIES))
def test_every_spelling_of_flux_is_flux(family: loras.Callable[[loras.Delta], loras.State]) -> None:
    state = family(loras.everything())
    assert other_model(state, {}, sizes_of(split(convert(state), {}).values())) is None


def test_xlabs_is_flux() -> None:
    state = loras.xlabs(loras.attention())
    assert other_model(state, {}, sizes_of(split(convert(state), {}).values())) is None


@pytest.mark.parametrize(
    "keys",
    [
        counted(DOUBLE, 19) + counted(SINGLE, 38),
        counted(NATIVE, 19) + counted("lora_unet_single_blocks_{}_linear2", 38),
        names(
            "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
            "lora_te1_text_model_encoder_layers_0_mlp_fc1",
        ),
        names(
            "text_encoder.text_model.encoder.layers.11.mlp.fc2",
            "text_encoders.clip_l.transformer.text_model.encoder.layers.11.mlp.fc2",
            "clip_l.text_model.encoder.layers.11.mlp.fc1",
        ),
        names("text_encoder_2.encoder.block.23.layer.0.SelfAttention.q"),
        names("lora_te3_encoder_block_23_layer_1_DenseReluDense_wi_0"),
    ],
    ids=["diffusers", "native", "CLIP", "CLIP, dots", "T5", "T5, kohya"],
)
def test_all_blocks_of_flux_are_flux(keys: list[str]) -> None:
    assert other_model(keys, {}) is None


def pair(module: str, rows: int, width: int) -> dict[str, Tensor]:
    return {
        f"{module}.lora_A.weight": torch.zeros(1, width),
        f"{module}.lora_B.weight": torch.zeros(rows, 1),
    }


def loha(module: str, rows: int, width: int) -> dict[str, Tensor]:
    factors = {"w1_a": (rows, 1), "w1_b": (1, width), "w2_a": (rows, 1), "w2_b": (1, width)}
    return {f"{module}.hada_{name}": torch.zeros(shape) for name, shape in factors.items()}


def lokr(module: str, rows: int, width: int) -> dict[str, Tensor]:
    factors = {"w1": (4, 4), "w2_a": (rows // 4, 2), "w2_b": (2, width // 4)}
    return {f"{module}.lokr_{name}": torch.zeros(shape) for name, shape in factors.items()}


def diff(module: str, rows: int, width: int) -> dict[str, Tensor]:
    return {f"{module}.diff": torch.zeros(1, 1).expand(rows, width)}


WRITTEN = {"LoRA": pair, "LoHa": loha, "LoKr": lokr, "whole": diff}


@pytest.mark.parametrize(
    ("module", "times", "model"),
    [
        ("diffusion_model.single_blocks.0.linear1", 9, "FLUX.2"),
        ("diffusion_model.single_blocks.0.linear1", 7, None),
        ("lora_unet_single_blocks_0_linear1", 9, "FLUX.2"),
        ("diffusion_model.double_blocks.0.img_mlp.0", 6, "FLUX.2"),
        ("lora_unet_double_blocks_0_txt_mlp_0", 6, "FLUX.2"),
        ("diffusion_model.double_blocks.0.txt_mlp.0", 4, None),
        ("diffusion_model.double_blocks.0.img_mod.lin", 6, None),
    ],
)
@pytest.mark.parametrize("written", WRITTEN, ids=list(WRITTEN))
def test_flux2_is_told_by_its_gates(
    module: str, times: int, model: str | None, written: str
) -> None:
    """Its klein 4B is as wide as FLUX.1 and has fewer blocks, under the published names."""
    state = WRITTEN[written](module, times * WIDTH, WIDTH)
    assert other_model(state, {}, sizes_of(split(state, {}).values())) == model


@pytest.mark.parametrize(
    ("module", "width", "words"),
    [
        ("diffusion_model.img_in", 128, "a control image"),
        ("lora_unet_img_in", 128, "a control image"),
        ("transformer.x_embedder", 128, "a control image"),
        ("transformer.img_in.proj", 128, "a control image"),
        ("lora_transformer_x_embedder", 384, "FLUX.1 Fill"),
        ("diffusion_model.img_in", 64, None),
        ("diffusion_model.txt_in", 128, None),
    ],
)
@pytest.mark.parametrize("written", WRITTEN, ids=list(WRITTEN))
def test_what_a_lora_needs_besides_is_told(
    module: str, width: int, words: str | None, written: str
) -> None:
    state = WRITTEN[written](module, WIDTH, width)
    found = other_use(sizes_of(split(state, {}).values()))
    assert found is None if words is None else words in (found or "")
