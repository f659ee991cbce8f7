"""The sizes of the small checkpoints, and every tensor in them. Standard library only.

The names are those of the files that Black Forest Labs, OpenAI and Google published.
"""

from __future__ import annotations

HIDDEN = 256  # 2 heads of 128, the head size that FLUX's position axes (16, 56, 56) add up to
DOUBLE_BLOCKS = 2
SINGLE_BLOCKS = 2
HEAD = 128

T5_WIDTH = 64
T5_HEADS = 2
T5_KV = 32
T5_FF = 128
T5_LAYERS = 24  # ComfyUI knows a T5-XXL by its 24th block
T5_VOCABULARY = 32128

CLIP_WIDTH = 32
CLIP_HEAD = 16
CLIP_FF = 64
CLIP_LAYERS = 2
CLIP_VOCABULARY = 49408
CLIP_POSITIONS = 77

LATENT_CHANNELS = 16
VAE_WIDTH = 64

Shapes = dict[str, tuple[int, ...]]


def _linear(name: str, out: int, into: int) -> Shapes:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def _embedder(name: str, into: int) -> Shapes:
    first = _linear(f"{name}.in_layer", HIDDEN, into)
    return first | _linear(f"{name}.out_layer", HIDDEN, HIDDEN)


def _norms(name: str) -> Shapes:
    return {f"{name}.{which}_norm.scale": (HEAD,) for which in ("query", "key")}


def flux(*, guidance: bool) -> Shapes:
    """The transformer; `guidance` is what dev has and schnell has not."""
    h = HIDDEN
    shapes = _linear("img_in", h, 4 * LATENT_CHANNELS) | _linear("txt_in", h, T5_WIDTH)
    shapes |= _embedder("time_in", 256) | _embedder("vector_in", CLIP_WIDTH)
    if guidance:
        shapes |= _embedder("guidance_in", 256)
    for index in range(DOUBLE_BLOCKS):
        for stream in ("img", "txt"):
            part = f"double_blocks.{index}.{stream}"
            shapes |= _linear(f"{part}_mod.lin", 6 * h, h)
            shapes |= _linear(f"{part}_attn.qkv", 3 * h, h) | _norms(f"{part}_attn.norm")
            shapes |= _linear(f"{part}_attn.proj", h, h)
            shapes |= _linear(f"{part}_mlp.0", 4 * h, h) | _linear(f"{part}_mlp.2", h, 4 * h)
    for index in range(SINGLE_BLOCKS):
        part = f"single_blocks.{index}"
        shapes |= _linear(f"{part}.linear1", 7 * h, h) | _linear(f"{part}.linear2", h, 5 * h)
        shapes |= _norms(f"{part}.norm") | _linear(f"{part}.modulation.lin", 3 * h, h)
    shapes |= _linear("final_layer.linear", 4 * LATENT_CHANNELS, h)
    return shapes | _linear("final_layer.adaLN_modulation.1", 2 * h, h)


def t5() -> Shapes:
    """The T5 encoder."""
    inner = T5_HEADS * T5_KV
    shapes: Shapes = {"shared.weight": (T5_VOCABULARY, T5_WIDTH)}
    for index in range(T5_LAYERS):
        attention = f"encoder.block.{index}.layer.0"
        for letter in "qkv":
            shapes[f"{attention}.SelfAttention.{letter}.weight"] = (inner, T5_WIDTH)
        shapes[f"{attention}.SelfAttention.o.weight"] = (T5_WIDTH, inner)
        if index == 0:
            shapes[f"{attention}.SelfAttention.relative_attention_bias.weight"] = (32, T5_HEADS)
        shapes[f"{attention}.layer_norm.weight"] = (T5_WIDTH,)
        feed = f"encoder.block.{index}.layer.1"
        shapes[f"{feed}.DenseReluDense.wi_0.weight"] = (T5_FF, T5_WIDTH)
        shapes[f"{feed}.DenseReluDense.wi_1.weight"] = (T5_FF, T5_WIDTH)
        shapes[f"{feed}.DenseReluDense.wo.weight"] = (T5_WIDTH, T5_FF)
        shapes[f"{feed}.layer_norm.weight"] = (T5_WIDTH,)
    return shapes | {"encoder.final_layer_norm.weight": (T5_WIDTH,)}


def clip() -> Shapes:
    """The CLIP text encoder."""
    top, w = "text_model", CLIP_WIDTH
    shapes: Shapes = {
        f"{top}.embeddings.token_embedding.weight": (CLIP_VOCABULARY, w),
        f"{top}.embeddings.position_embedding.weight": (CLIP_POSITIONS, w),
    }
    for index in range(CLIP_LAYERS):
        part = f"{top}.encoder.layers.{index}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _linear(f"{part}.self_attn.{name}", w, w)
        shapes |= _linear(f"{part}.mlp.fc1", CLIP_FF, w) | _linear(f"{part}.mlp.fc2", w, CLIP_FF)
        for name in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{part}.{name}.weight": (w,), f"{part}.{name}.bias": (w,)}
    norm = f"{top}.final_layer_norm"
    return shapes | {f"{norm}.weight": (w,), f"{norm}.bias": (w,)}


def _conv(name: str, out: int, into: int, *, bias: bool = True) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (out, into, 3, 3)}
    return shapes | ({f"{name}.bias": (out,)} if bias else {})


def _conv_block(name: str) -> Shapes:
    shapes: Shapes = {}
    for index in (0, 2, 4):
        shapes |= _conv(f"{name}.conv.{index}", VAE_WIDTH, VAE_WIDTH)
    return shapes


def vae() -> Shapes:
    """A TAESD with 16 channels: the index of a part is its place in the network."""
    w = VAE_WIDTH
    encoder = _conv("taesd_encoder.0", w, 3) | _conv_block("taesd_encoder.1")
    for first in (2, 6, 10):
        encoder |= _conv(f"taesd_encoder.{first}", w, w, bias=False)
        for index in range(first + 1, first + 4):
            encoder |= _conv_block(f"taesd_encoder.{index}")
    encoder |= _conv("taesd_encoder.14", LATENT_CHANNELS, w)
    decoder = _conv("taesd_decoder.1", w, LATENT_CHANNELS)
    for first in (3, 8, 13):
        for index in range(first, first + 3):
            decoder |= _conv_block(f"taesd_decoder.{index}")
        decoder |= _conv(f"taesd_decoder.{first + 4}", w, w, bias=False)
    decoder |= _conv_block("taesd_decoder.18") | _conv("taesd_decoder.19", 3, w)
    return encoder | decoder | {"vae_scale": (), "vae_shift": ()}
