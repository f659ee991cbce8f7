"""The small checkpoints in diffusers and transformers, with exactly the weights of the files.

    pipe = load_pipeline("dev", folder)      # FluxPipeline without VAE and tokenizers
    transformer = load_transformer("dev", folder)
    t5, clip = load_t5(folder), load_clip(folder)
    clip_tokenizer, t5_tokenizer = load_tokenizers(comfyui_folder)

`folder` is a models folder as `make.py` lays it out. The key conversion is our own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from . import shapes

State = dict[str, Tensor]
Model = Literal["dev", "schnell"]


def load_pipeline(model: Model, folder: Path) -> FluxPipeline:
    """A FluxPipeline for prompt embeddings and `output_type="latent"`, with FLUX's scheduler."""
    return FluxPipeline(
        scheduler=scheduler(model),
        vae=None,  # type: ignore[arg-type] - latents out, the small VAE is not an AutoencoderKL
        text_encoder=None,  # type: ignore[arg-type] - embeddings in
        tokenizer=None,  # type: ignore[arg-type]
        text_encoder_2=None,  # type: ignore[arg-type]
        tokenizer_2=None,  # type: ignore[arg-type]
        transformer=load_transformer(model, folder),
    )


def scheduler(model: Model) -> FlowMatchEulerDiscreteScheduler:
    """The scheduler with the published settings of FLUX.1 dev and schnell."""
    shared = {"base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256}
    shared |= {"max_image_seq_len": 4096, "num_train_timesteps": 1000}
    if model == "dev":
        return FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True, **shared)
    return FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False, **shared)


def load_transformer(model: Model, folder: Path) -> FluxTransformer2DModel:
    """The transformer of dev or schnell, fp32."""
    state = _read(folder / "diffusion_models" / f"flux1-{model}.safetensors")
    hidden, channels = state["img_in.weight"].shape
    transformer = FluxTransformer2DModel(
        in_channels=channels,
        num_layers=len(_blocks(state, "double_blocks")),
        num_single_layers=len(_blocks(state, "single_blocks")),
        attention_head_dim=shapes.HEAD,
        num_attention_heads=hidden // shapes.HEAD,
        joint_attention_dim=state["txt_in.weight"].shape[1],
        pooled_projection_dim=state["vector_in.in_layer.weight"].shape[1],
        guidance_embeds=model == "dev",
        axes_dims_rope=(16, 56, 56),
    )
    transformer.load_state_dict(to_diffusers(state), strict=True)
    return transformer.eval()


def load_t5(folder: Path) -> T5EncoderModel:
    """The T5 encoder, fp32."""
    state = _read(folder / "text_encoders" / "t5xxl_fp16.safetensors")
    attention = "encoder.block.0.layer.0.SelfAttention"
    vocabulary, width = state["shared.weight"].shape
    heads = state[f"{attention}.relative_attention_bias.weight"].shape[1]
    config = T5Config(
        vocab_size=vocabulary,
        d_model=width,
        d_kv=state[f"{attention}.q.weight"].shape[0] // heads,
        d_ff=state["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"].shape[0],
        num_layers=len({name.split(".")[2] for name in state if ".block." in name}),
        num_heads=heads,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    encoder = T5EncoderModel(config)
    _load_all_but_copies(encoder, state)
    return encoder.eval()


def load_clip(folder: Path) -> CLIPTextModel:
    """The CLIP text encoder, fp32."""
    state = _read(folder / "text_encoders" / "clip_l.safetensors")
    width = state["text_model.final_layer_norm.weight"].shape[0]
    feed = state["text_model.encoder.layers.0.mlp.fc1.weight"].shape[0]
    layers = {name.split(".")[3] for name in state if ".layers." in name}
    encoder = CLIPTextModel(clip_config(width, feed, len(layers)))
    ours = encoder.state_dict()
    if not any(name.startswith("text_model.") for name in ours):
        state = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    _load_all_but_copies(encoder, state)
    return encoder.eval()


def _read(path: Path) -> State:
    return {name: tensor.float() for name, tensor in load_file(path).items()}


def clip_config(width: int, feed: int, layers: int) -> CLIPTextConfig:
    """A CLIP text encoder of any size, with the published vocabulary."""
    return CLIPTextConfig(
        vocab_size=shapes.CLIP_VOCABULARY,
        hidden_size=width,
        intermediate_size=feed,
        num_hidden_layers=layers,
        num_attention_heads=width // shapes.CLIP_HEAD,
        max_position_embeddings=shapes.CLIP_POSITIONS,
        hidden_act="quick_gelu",
        bos_token_id=49406,
        eos_token_id=49407,
        pad_token_id=49407,
    )


def load_tokenizers(comfyui: Path) -> tuple[CLIPTokenizer, T5Tokenizer]:
    """CLIP's and T5's tokenizers, from the files that a ComfyUI carries."""
    clip = CLIPTokenizer.from_pretrained(comfyui / "comfy" / "sd1_tokenizer")
    t5 = T5Tokenizer.from_pretrained(comfyui / "comfy" / "text_encoders" / "t5_tokenizer")
    return clip, t5


def _load_all_but_copies(module: torch.nn.Module, state: State) -> None:
    """Load a state whose only gaps may be tensors that share memory with a loaded one."""
    gaps, unknown = module.load_state_dict(state, strict=False)
    own = module.state_dict(keep_vars=True)
    loaded = {own[name].data_ptr() for name in state if name in own}
    lost = [
        name for name in gaps if "position_ids" not in name and own[name].data_ptr() not in loaded
    ]
    if lost or unknown:
        raise ValueError(f"weights do not fit: missing {lost}, unknown {list(unknown)}")


# --- from the published FLUX names to those of diffusers ---

_EMBEDDERS = {
    "time_in": "timestep_embedder",
    "vector_in": "text_embedder",
    "guidance_in": "guidance_embedder",
}
_DOUBLE = {
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
}
_DOUBLE_NORMS = {
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
}
_DOUBLE_QKV = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}


def to_diffusers(state: State) -> State:
    """Rename and split the tensors of a FLUX file for `FluxTransformer2DModel`.

    Raises:
        KeyError: when the state lacks a tensor.
        ValueError: when it has one that FLUX does not.
    """
    left = dict(state)
    made: State = {}
    for name, theirs in (("img_in", "x_embedder"), ("txt_in", "context_embedder")):
        _move(left, made, name, theirs)
    for name, theirs in _EMBEDDERS.items():
        if name == "guidance_in" and f"{name}.in_layer.weight" not in left:
            continue
        _move(left, made, f"{name}.in_layer", f"time_text_embed.{theirs}.linear_1")
        _move(left, made, f"{name}.out_layer", f"time_text_embed.{theirs}.linear_2")
    for index in _blocks(state, "double_blocks"):
        _double_block(left, made, index)
    for index in _blocks(state, "single_blocks"):
        _single_block(left, made, index)
    _move(left, made, "final_layer.linear", "proj_out")
    _last_norm(left, made)
    if left:
        raise ValueError(f"these tensors are none of FLUX's: {sorted(left)}")
    return made


def _blocks(state: State, kind: str) -> range:
    return range(len({name.split(".")[1] for name in state if name.startswith(f"{kind}.")}))


def _double_block(left: State, made: State, index: int) -> None:
    ours, theirs = f"double_blocks.{index}", f"transformer_blocks.{index}"
    for name, target in _DOUBLE.items():
        _move(left, made, f"{ours}.{name}", f"{theirs}.{target}")
    for name, target in _DOUBLE_NORMS.items():
        made[f"{theirs}.{target}.weight"] = left.pop(f"{ours}.{name}.scale")
    for name, targets in _DOUBLE_QKV.items():
        sizes = [left[f"{ours}.{name}.weight"].shape[1]] * 3
        _split(left, made, f"{ours}.{name}", [f"{theirs}.{target}" for target in targets], sizes)


def _single_block(left: State, made: State, index: int) -> None:
    ours, theirs = f"single_blocks.{index}", f"single_transformer_blocks.{index}"
    rows, hidden = left[f"{ours}.linear1.weight"].shape
    targets = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")
    sizes = [hidden, hidden, hidden, rows - 3 * hidden]
    _split(left, made, f"{ours}.linear1", [f"{theirs}.{target}" for target in targets], sizes)
    _move(left, made, f"{ours}.linear2", f"{theirs}.proj_out")
    _move(left, made, f"{ours}.modulation.lin", f"{theirs}.norm.linear")
    made[f"{theirs}.attn.norm_q.weight"] = left.pop(f"{ours}.norm.query_norm.scale")
    made[f"{theirs}.attn.norm_k.weight"] = left.pop(f"{ours}.norm.key_norm.scale")


def _last_norm(left: State, made: State) -> None:
    """FLUX's last modulation gives (shift, scale), that of diffusers (scale, shift)."""
    for kind in ("weight", "bias"):
        shift, scale = left.pop(f"final_layer.adaLN_modulation.1.{kind}").chunk(2)
        made[f"norm_out.linear.{kind}"] = torch.cat([scale, shift])


def _move(left: State, made: State, ours: str, theirs: str) -> None:
    for kind in ("weight", "bias"):
        made[f"{theirs}.{kind}"] = left.pop(f"{ours}.{kind}")


def _split(left: State, made: State, ours: str, theirs: list[str], sizes: list[int]) -> None:
    for kind in ("weight", "bias"):
        parts = left.pop(f"{ours}.{kind}").split(sizes)
        for target, part in zip(theirs, parts, strict=True):
            made[f"{target}.{kind}"] = part.clone()
