"""The names in LoRA files, how a file fits, and when its source has changed. No ComfyUI."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from mini_flux import loras

from flux_hotswap.ops.lora.family import family_of
from flux_hotswap.ops.lora.fit import Fit, describe, refusal, shown
from flux_hotswap.ops.lora.names import convert, core_name, sources
from flux_hotswap.ops.lora.watch import RECENT, Watch

NAMES = {
    # XLabs
    "double_blocks.7.processor.qkv_lora1.down.weight": (
        "diffusion_model.double_blocks.7.img_attn.qkv.lora_down.weight"
    ),
    "double_blocks.7.processor.qkv_lora2.up.weight": (
        "diffusion_model.double_blocks.7.txt_attn.qkv.lora_up.weight"
    ),
    "double_blocks.0.processor.proj_lora1.up.weight": (
        "diffusion_model.double_blocks.0.img_attn.proj.lora_up.weight"
    ),
    "double_blocks.0.processor.proj_lora2.down.weight": (
        "diffusion_model.double_blocks.0.txt_attn.proj.lora_down.weight"
    ),
    "single_blocks.37.processor.qkv_lora.up.weight": (
        "diffusion_model.single_blocks.37.linear1_qkv.lora_up.weight"
    ),
    "diffusion_model.single_blocks.1.processor.proj_lora.down.weight": (
        "diffusion_model.single_blocks.1.linear2.lora_down.weight"
    ),
    # names without a prefix, or with another one
    "double_blocks.0.img_attn.qkv.lora_A.weight": (
        "diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight"
    ),
    "base_model.model.single_blocks.0.linear1.lora_B.weight": (
        "diffusion_model.single_blocks.0.linear1.lora_B.weight"
    ),
    "transformer.double_blocks.0.img_mlp.0.lora_A.weight": (
        "diffusion_model.double_blocks.0.img_mlp.0.lora_A.weight"
    ),
    "model.diffusion_model.img_in.lora_A.weight": "diffusion_model.img_in.lora_A.weight",
    "final_layer.adaLN_modulation.1.lora_A.weight": (
        "diffusion_model.final_layer.adaLN_modulation.1.lora_A.weight"
    ),
    "transformer_blocks.0.attn.to_q.lora_A.weight": (
        "transformer.transformer_blocks.0.attn.to_q.lora_A.weight"
    ),
    "base_model.model.transformer.x_embedder.lora_A.weight": (
        "transformer.x_embedder.lora_A.weight"
    ),
    "proj_out.alpha": "transformer.proj_out.alpha",
    "lora_unet_transformer_blocks_0_attn_to_q.lora_up.weight": (
        "lora_transformer_transformer_blocks_0_attn_to_q.lora_up.weight"
    ),
    "lora_unet_transformer_blocks_0_norm1_linear.alpha": (
        "lora_transformer_transformer_blocks_0_norm1_linear.alpha"
    ),
    "lora_unet_single_transformer_blocks_37_norm_linear.lora_down.weight": (
        "lora_transformer_single_transformer_blocks_37_norm_linear.lora_down.weight"
    ),
    "lora_unet_x_embedder.lora_down.weight": "lora_transformer_x_embedder.lora_down.weight",
    "lora_unet_context_embedder.alpha": "lora_transformer_context_embedder.alpha",
    "lora_unet_time_text_embed_text_embedder_linear_1.alpha": (
        "lora_transformer_time_text_embed_text_embedder_linear_1.alpha"
    ),
    "lora_unet_norm_out_linear.alpha": "lora_transformer_norm_out_linear.alpha",
    "lora_unet_proj_out.alpha": "lora_transformer_proj_out.alpha",
    # early kohya, with an underscore behind
    "lora_unet_transformer_blocks_0_attn_to_q_.lora_down.weight": (
        "lora_transformer_transformer_blocks_0_attn_to_q.lora_down.weight"
    ),
    "lora_unet_double_blocks_0_img_mod_lin_.alpha": "lora_unet_double_blocks_0_img_mod_lin.alpha",
    # diffusers, before there was PEFT
    "transformer.transformer_blocks.0.attn.processor.to_q_lora.down.weight": (
        "transformer.transformer_blocks.0.attn.to_q.lora_down.weight"
    ),
    "transformer_blocks.0.attn.processor.to_out_lora.up.weight": (
        "transformer.transformer_blocks.0.attn.to_out.0.lora_up.weight"
    ),
    "transformer_blocks.0.attn.processor.add_k_proj_lora.up.weight": (
        "transformer.transformer_blocks.0.attn.add_k_proj.lora_up.weight"
    ),
    # what wraps a model
    "module.transformer_blocks.0.attn.to_q.lora_A.weight": (
        "transformer.transformer_blocks.0.attn.to_q.lora_A.weight"
    ),
    "_orig_mod.transformer_blocks.0.attn.to_q.lora_A.weight": (
        "transformer.transformer_blocks.0.attn.to_q.lora_A.weight"
    ),
    "transformer._orig_mod.transformer_blocks.0._orig_mod.attn.to_q.lora_A.weight": (
        "transformer.transformer_blocks.0.attn.to_q.lora_A.weight"
    ),
    "pipe.transformer.proj_out.lora_A.weight": "transformer.proj_out.lora_A.weight",
    # OMI: the published names, in diffusers' parts
    "transformer.double_blocks.3.img_attn.qkv.1.lora_down.weight": (
        "transformer.transformer_blocks.3.attn.to_k.lora_down.weight"
    ),
    "transformer.double_blocks.3.txt_attn.qkv.2.alpha": (
        "transformer.transformer_blocks.3.attn.add_v_proj.alpha"
    ),
    "transformer.single_blocks.5.linear1.0.lora_up.weight": (
        "transformer.single_transformer_blocks.5.attn.to_q.lora_up.weight"
    ),
    "transformer.single_blocks.5.linear1.3.dora_scale": (
        "transformer.single_transformer_blocks.5.proj_mlp.dora_scale"
    ),
    "transformer.double_blocks.3.img_mlp.0.lora_up.weight": (
        "diffusion_model.double_blocks.3.img_mlp.0.lora_up.weight"
    ),
    "transformer.img_in.proj.lora_up.weight": "diffusion_model.img_in.lora_up.weight",
    "clip_l.text_model.encoder.layers.0.mlp.fc1.lora_up.weight": (
        "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.lora_up.weight"
    ),
    "t5.encoder.block.3.layer.0.SelfAttention.q.lora_up.weight": (
        "text_encoders.t5xxl.transformer.encoder.block.3.layer.0.SelfAttention.q.lora_up.weight"
    ),
    # kohya's parts of qkv, not merged yet
    "lora_unet_double_blocks_0_img_attn_qkv.lora_down.2.weight": (
        "transformer.transformer_blocks.0.attn.to_v.lora_down.weight"
    ),
    "lora_unet_double_blocks_0_txt_attn_qkv.lora_up.0.weight": (
        "transformer.transformer_blocks.0.attn.add_q_proj.lora_up.weight"
    ),
    "lora_unet_single_blocks_9_linear1.lora_up.3.weight": (
        "transformer.single_transformer_blocks.9.proj_mlp.lora_up.weight"
    ),
    "double_blocks.7.processor.qkv_lora1.alpha": (
        "diffusion_model.double_blocks.7.img_attn.qkv.alpha"
    ),
    # PEFT around one text encoder
    "base_model.model.text_model.encoder.layers.0.mlp.fc1.lora_A.weight": (
        "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight"
    ),
    "base_model.model.encoder.block.3.layer.0.SelfAttention.q.lora_A.weight": (
        "text_encoders.t5xxl.transformer.encoder.block.3.layer.0.SelfAttention.q.lora_A.weight"
    ),
    # the adapter's name
    "transformer.proj_out.lora_A.default.weight": "transformer.proj_out.lora_A.weight",
    "transformer.proj_out.lora_B.my-style_2.weight": "transformer.proj_out.lora_B.weight",
    # text encoders
    "text_encoder_2.encoder.block.3.layer.0.SelfAttention.q.lora_A.weight": (
        "text_encoders.t5xxl.transformer.encoder.block.3.layer.0.SelfAttention.q.lora_A.weight"
    ),
    "text_encoder.encoder.layers.0.mlp.fc1.lora_B.weight": (
        "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_B.weight"
    ),
}
KEPT = [
    "transformer.transformer_blocks.0.attn.to_q.lora_A.weight",
    "transformer.single_transformer_blocks.0.proj_mlp.alpha",
    "diffusion_model.double_blocks.0.img_attn.qkv.lora_up.weight",
    "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight",
    "lora_unet_single_blocks_0_linear1.alpha",
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight",
    "lora_transformer_transformer_blocks_0_attn_to_q.lora_up.weight",
    "lycoris_single_transformer_blocks_0_attn_to_q.lokr_w1",
    "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight",
    "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight",
    "something.else.lora_A.weight",
    "double_blocks_are_not_a_module",
]


@pytest.mark.parametrize(("name", "core"), NAMES.items(), ids=list(NAMES))
def test_a_name_becomes_the_cores(name: str, core: str) -> None:
    assert core_name(name) == core
    assert core_name(core) == core


@pytest.mark.parametrize("name", KEPT)
def test_a_name_that_the_core_knows_stays(name: str) -> None:
    assert core_name(name) == name


def test_tensors_keep_their_order_and_are_not_touched() -> None:
    names = {core: name for name, core in NAMES.items()}  # one of each that mean the same
    values = [object() for _ in names]
    made = convert(dict(zip(names.values(), values, strict=True)))
    assert list(made) == list(names)
    assert all(one is other for one, other in zip(made.values(), values, strict=True))


def test_one_alpha_is_for_all_parts_that_are_not_merged() -> None:
    start = "lora_unet_double_blocks_0_img_attn_qkv"
    names = [f"{start}.lora_{side}.{part}.weight" for side in ("up", "down") for part in range(3)]
    found = sources([*names, f"{start}.alpha", "lora_unet_double_blocks_1_img_attn_qkv.alpha"])
    parts = [f"transformer.transformer_blocks.0.attn.to_{part}" for part in "qkv"]
    assert [found[f"{part}.alpha"] for part in parts] == [f"{start}.alpha"] * 3
    assert f"{start}.alpha" not in found
    assert "lora_unet_double_blocks_1_img_attn_qkv.alpha" in found


def test_two_names_of_one_tensor_are_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        convert({"proj_out.alpha": 1, "transformer.proj_out.alpha": 2})


SPELLED = {
    "diffusers": "diffusers",
    "diffusers without prefix": "diffusers, without transformer.",
    "PEFT of diffusers": "PEFT",
    "PEFT of BFL": "PEFT",
    "kohya with alpha": "kohya",
    "ComfyUI": "BFL, with diffusion_model.",
    "BFL": "BFL",
    "OneTrainer": "OneTrainer",
}


@pytest.mark.parametrize(("spelling", "name"), SPELLED.items(), ids=list(SPELLED))
def test_the_family_is_seen(spelling: str, name: str) -> None:
    family = family_of(loras.FAMILIES[spelling](loras.blocks()))
    assert (family.name, family.flux) == (name, True)


def test_the_family_of_xlabs_is_seen() -> None:
    assert family_of(loras.xlabs(loras.attention())).name == "XLabs"


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("lora_unet_input_blocks_4_1_proj_in.lora_up.weight", "SDXL"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", "SDXL"),
        ("unet.down_blocks.2.attentions.0.transformer_blocks.9.attn1.to_q.lora_A.weight", "SDXL"),
        (
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.alpha",
            "Stable Diffusion 1.x or 2.x",
        ),
        ("diffusion_model.joint_blocks.0.x_block.attn.qkv.lora_A.weight", "Stable Diffusion 3"),
        ("transformer.joint_transformer_blocks.0.attn.to_q.lora_A.weight", "AuraFlow"),
        ("diffusion_model.blocks.0.cross_attn.k.lora_A.weight", "Wan"),
        ("abc", "unknown"),
    ],
)
def test_another_models_family_is_seen(name: str, model: str) -> None:
    family = family_of([name])
    assert (family.name, family.flux) == (model, False)


# --- how a file fitted ---


ODD = ("proj_out.odd", *(f"odd{i}" for i in range(4)))
TEXT = "text_encoder_2.encoder.block.0.layer.0.SelfAttention.q.lora_A.weight"


def fit(*names: str, **known: Any) -> Fit:
    return replace(Fit.of(names), **known)


def test_only_what_was_used_is_matched() -> None:
    """Whatever became of the rest: no other number can be in the way."""
    partly = fit("a", "b", "c", TEXT, used=frozenset("a"), misfitting=frozenset("b"))
    assert (partly.keys, partly.matched) == (4, 1)
    assert (partly.unread, partly.text) == (["c"], [TEXT])


def test_the_report_names_what_was_not_matched() -> None:
    partly = fit(*ODD, TEXT, patched=3)
    assert describe(partly, has_clip=False) == [
        "keys: 0 of 6 matched (text encoder), 3 weights changed",
        "not matched: proj_out.odd, odd0, odd1 and 2 more",
        "text encoders: 1 keys left out, no CLIP is connected",
    ]
    assert describe(partly, has_clip=True)[-1] == f"not matched in the text encoders: {TEXT}"
    assert "wrong shape: x" in describe(fit("a", misfits=("x",)), has_clip=True)[-1]
    assert describe(fit("a", notes=("y",)), has_clip=True)[-1] == "warning: y"


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (fit("double_blocks.0.img_attn.qkv.weight"), "is a checkpoint or a part of one"),
        (fit("model.diffusion_model.single_blocks.0.linear1.weight"), "is a checkpoint"),
        (fit("transformer_blocks.0.attn.to_q.weight"), "is a checkpoint"),
        (fit("double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight"), "an IP-Adapter"),
        (fit("abc"), "of no known family"),
        (fit("double_blocks.99.img_attn.qkv.lora_A.weight"), "of the family BFL"),
        (fit("lora_te1_x.alpha"), "changes only the text encoders (1 keys)"),
        (fit("abc", misfits=("img_in (1x1 instead of 2x2)",)), "another size: img_in (1x1"),
    ],
)
def test_a_refusal_says_what_was_seen(bad: Fit, words: str) -> None:
    assert words in refusal("a.safetensors", bad, has_clip=False)


def test_a_clip_that_is_connected_is_not_asked_for() -> None:
    words = refusal("a.safetensors", fit("lora_te1_x.alpha"), has_clip=True)
    assert "the connected CLIP has none of those layers, such as lora_te1_x.alpha" in words
    assert "connect clip" not in words


def test_long_names_are_cut() -> None:
    assert shown(["x" * 1000]) == "x" * 87 + "..."


# --- the watch ---


def test_a_state_changes_when_the_bytes_do() -> None:
    watch, now = Watch(), {"a": "1", "b": "1"}
    before = watch.state("a", now.get), watch.state(None, now.get)
    watch.note("a", "1")
    watch.note("b", "1")
    assert (watch.state(" a ", now.get), watch.state(None, now.get)) == before
    now["b"] = "2"
    assert watch.state("a", now.get) == before[0]
    assert watch.state(None, now.get) != before[1]
    changed = watch.state("b", now.get)
    watch.note("b", "2")
    assert watch.state("b", now.get) == changed != before[0]


def test_only_the_latest_sources_are_asked_about() -> None:
    watch, asked = Watch(), []
    for number in [*range(20), 3]:
        watch.note(str(number), "1")

    def look(source: str) -> None:
        asked.append(source)

    watch.state(None, look)
    assert len(asked) == RECENT
    assert asked[-2:] == ["19", "3"]


def test_a_source_that_cannot_be_asked_has_not_changed() -> None:
    watch = Watch()
    before = watch.state("a", lambda _: None)
    watch.note("a", "1")
    assert watch.state("a", lambda _: None) == before
