"""Let ComfyUI's stock loaders take the small FLUX checkpoints; real files are left alone.

Two things are fixed in the loaders that a file's tensors tell as well: 0.3.75 takes 24 heads for
granted (later versions count them), and every version builds the text encoders at full size.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import comfy.model_detection
import comfy.sd

HEAD = 128  # every FLUX has heads of this size
CLIP_HEAD = 16  # the small CLIP's; the published one has 64
FULL_CLIP_WIDTH = 768
FULL_T5_WIDTH = 4096

_CLIP_WIDTH = "text_model.embeddings.position_embedding.weight"
_CLIP_FF = "text_model.encoder.layers.0.mlp.fc1.weight"
_T5_WIDTH = "encoder.final_layer_norm.weight"
_T5_BIAS = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
_T5_Q = "encoder.block.0.layer.0.SelfAttention.q.weight"
_T5_FF = "encoder.block.0.layer.1.DenseReluDense.wi_0.weight"

Config = dict[str, Any]


def install() -> None:
    """Put both repairs in place."""
    comfy.model_detection.detect_unet_config = _counting_heads(
        comfy.model_detection.detect_unet_config
    )
    comfy.sd.load_text_encoder_state_dicts = _fitting_sizes(comfy.sd.load_text_encoder_state_dicts)


def _counting_heads(detect: Any) -> Any:
    @functools.wraps(detect)
    def detect_unet_config(*args: Any, **kwargs: Any) -> Any:
        config = detect(*args, **kwargs)
        if config and config.get("image_model") == "flux":
            config["num_heads"] = config["hidden_size"] // HEAD
        return config

    return detect_unet_config


def _fitting_sizes(load: Any) -> Any:
    @functools.wraps(load)
    def load_text_encoder_state_dicts(
        state_dicts: list[Any],
        embedding_directory: Any = None,
        clip_type: Any = comfy.sd.CLIPType.STABLE_DIFFUSION,
        model_options: Config | None = None,
        **kwargs: Any,
    ) -> Any:
        options = dict(model_options or {})
        for state in state_dicts:
            options.update(_small_configs(state))
        return load(
            state_dicts,
            embedding_directory=embedding_directory,
            clip_type=clip_type,
            model_options=options,
            **kwargs,
        )

    return load_text_encoder_state_dicts


def _small_configs(state: Any) -> Config:
    """The model options that make ComfyUI build the encoder of `state` at the size it has."""
    if _CLIP_WIDTH in state and state[_CLIP_WIDTH].shape[1] != FULL_CLIP_WIDTH:
        config = _clip_config(state)
        logging.info("small CLIP: %s", config)
        # The long-CLIP detection starts again from "model_config", a dict that it changes.
        return {"clip_l_model_config": config, "model_config": dict(config)}
    if _T5_BIAS in state and state[_T5_WIDTH].shape[0] != FULL_T5_WIDTH:
        config = _t5_config(state)
        logging.info("small T5: %s", config)
        return {"t5xxl_model_config": config}
    return {}


def _clip_config(state: Any) -> Config:
    width = state[_CLIP_WIDTH].shape[1]
    return {
        "hidden_size": width,
        "intermediate_size": state[_CLIP_FF].shape[0],
        "num_attention_heads": width // CLIP_HEAD,
        "num_hidden_layers": _count(state, "text_model.encoder.layers."),
        "projection_dim": width,
    }


def _t5_config(state: Any) -> Config:
    heads = state[_T5_BIAS].shape[1]
    return {
        "d_model": state[_T5_WIDTH].shape[0],
        "d_ff": state[_T5_FF].shape[0],
        "d_kv": state[_T5_Q].shape[0] // heads,
        "num_heads": heads,
        "num_layers": _count(state, "encoder.block."),
    }


def _count(state: Any, prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})
