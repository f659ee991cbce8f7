"""The tensors of a FLUX.1 checkpoint, in each of the layouts it comes in. No torch.

    BFL          double_blocks.0.img_attn.qkv.weight, the published files
    all in one   the same behind model.diffusion_model., beside text encoders and a VAE
    diffusers    transformer_blocks.0.attn.to_q.weight, with q, k, v and the MLP apart

The first is what ComfyUI runs. A tensor of it is one tensor of the others, or some of them on top
of each other, so every layout is read row by row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from ...errors import NotFluxError

Shapes = Mapping[str, tuple[int, ...]]

_PREFIXES: Final = ("model.diffusion_model.", "diffusion_model.", "")

_BLOCK_LINEARS: Final = re.compile(
    r"double_blocks\.\d+\.(?:img|txt)_(?:attn\.(?:qkv|proj)|mlp\.[02]|mod\.lin)\.weight"
    r"|single_blocks\.\d+\.(?:linear[12]|modulation\.lin)\.weight"
)
_MODULATION: Final = re.compile(r"_mod\.lin\.|\.modulation\.lin\.")
_SCALES: Final = (".weight_scale", ".scale_weight")
_LEFT_OUT: Final = re.compile(r"\.(?:input_scale|scale_input|comfy_quant)$|^scaled_fp8$")


class Piece(NamedTuple):
    """Rows of a tensor in the file.

    Attributes:
        name: of the tensor.
        start: the first row.
        stop: the row behind the last; None for all that follow.
        scale: the name of its scales in the file, if it is quantised there.
    """

    name: str
    start: int = 0
    stop: int | None = None
    scale: str | None = None


@dataclass(frozen=True)
class Target:
    """One tensor as ComfyUI names it.

    Attributes:
        name: its name.
        shape: its shape.
        pieces: what lies on top of each other to make it.
    """

    name: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]


def targets(shapes: Shapes) -> list[Target]:
    """Return the diffusion model's tensors in the names and shapes that ComfyUI runs.

    Raises:
        NotFluxError: they are not a FLUX.1 model's, or some are missing.
    """
    prefix = next(
        (p for p in _PREFIXES if f"{p}double_blocks.0.img_mod.lin.weight" in shapes), None
    )
    if prefix is not None:
        found = list(_native(shapes, prefix))
    elif "transformer_blocks.0.attn.add_q_proj.weight" in shapes:
        found = list(_from_diffusers(shapes))
    else:
        raise NotFluxError(_what_it_is(shapes))
    _check(found)
    return found


def is_block_linear(name: str) -> bool:
    """Whether a tensor is the weight of a linear layer in a block, modulation included."""
    return _BLOCK_LINEARS.fullmatch(name) is not None


def is_modulation(name: str) -> bool:
    """Whether a tensor belongs to a layer that turns the conditioning into shifts and gates."""
    return _MODULATION.search(name) is not None


def _native(shapes: Shapes, prefix: str) -> Iterator[Target]:
    for name, shape in shapes.items():
        ours = name.removeprefix(prefix)
        if not name.startswith(prefix) or _LEFT_OUT.search(ours) or ours.endswith(_SCALES):
            continue
        yield Target(ours, shape, (_piece(shapes, name),))


def _piece(shapes: Shapes, name: str, start: int = 0, stop: int | None = None) -> Piece:
    """Return rows of a tensor in the file, with the name of their scales."""
    module, _, kind = name.rpartition(".")
    found = (f"{module}{end}" for end in _SCALES if f"{module}{end}" in shapes)
    return Piece(name, start, stop, next(found, None) if kind == "weight" else None)


def _what_it_is(shapes: Iterable[str]) -> str:
    names = set(shapes)
    known = {
        "double_stream_modulation_img.lin.weight": "FLUX.2",
        "distilled_guidance_layer.in_proj.weight": "Chroma",
        "joint_blocks.0.x_block.attn.qkv.weight": "Stable Diffusion 3",
        "input_blocks.0.0.weight": "Stable Diffusion or SDXL",
        "transformer_blocks.0.attn.to_q.weight": "another transformer in diffusers' names",
    }
    for name, model in known.items():
        if any(f"{prefix}{name}" in names for prefix in _PREFIXES):
            return f"it holds {model}"
    return "its tensors are those of another model"


def in_diffusers(name: str) -> tuple[str, ...]:
    """Return what diffusers calls a layer, or the parts that it has of it; nothing if unknown.

    Args:
        name: the published one, such as `double_blocks.0.img_attn.qkv`.
    """
    kind, found, rest = name.partition("_blocks.")
    if not found:
        return {**_REST, "final_layer.adaLN_modulation.1": ("norm_out.linear",)}.get(name, ())
    index, _, layer = rest.partition(".")
    single = kind == "single"
    linears, norms = (_SINGLE, _SINGLE_NORMS) if single else (_DOUBLE, _DOUBLE_NORMS)
    parts = (norms[layer],) if layer in norms else linears.get(layer, ())
    block = f"{'single_' if single else ''}transformer_blocks.{index}"
    return tuple(f"{block}.{part}" for part in parts)


class Names(NamedTuple):
    """The layers of a FLUX.1 model, by their published names.

    Attributes:
        outside: the linear layers before and behind the blocks.
        linears: the linear layers in blocks.
        norms: the RMS norms.
    """

    outside: list[str]
    linears: list[str]
    norms: list[str]


def names_of(tensors: Iterable[str]) -> Names:
    """Return the layers that a model must have of which these tensors are some.

    Args:
        tensors: their published names. They tell how many blocks there are, at least one of each
            kind, and whether the model is told the guidance.
    """
    found = set(tensors)
    # Behind a gap, blocks are missing.
    double, single = (
        max(1, len(_indexes(found, kind))) for kind in ("double_blocks", "single_blocks")
    )
    guided = any(name.startswith("guidance_in.") for name in found)
    return names_for(double, single, guided=guided)


def names_for(double: int, single: int, *, guided: bool) -> Names:
    """Return the layers of a model with so many blocks of each kind.

    Args:
        double: double blocks.
        single: single blocks.
        guided: whether the model is told the guidance.
    """
    linears: list[str] = []
    norms: list[str] = []
    for kind, count, in_block, in_norms in (
        ("double_blocks", double, _DOUBLE, _DOUBLE_NORMS),
        ("single_blocks", single, _SINGLE, _SINGLE_NORMS),
    ):
        for index in range(count):
            linears += [f"{kind}.{index}.{name}" for name in in_block]
            norms += [f"{kind}.{index}.{name}" for name in in_norms]
    return Names(sorted(_ENDS | (_GUIDANCE if guided else set())), linears, norms)


def _check(found: list[Target]) -> None:
    names = {target.name for target in found}
    layers = names_of(names)
    both = (*layers.outside, *layers.linears)
    wanted = {f"{name}{end}" for name in both for end in (".weight", ".bias")}
    wanted |= {f"{name}.scale" for name in layers.norms}
    if missing := sorted(wanted - names):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise NotFluxError(f"it lacks {missing[0]}{more}")
    odd = [t.name for t in found if is_block_linear(t.name) and len(t.shape) != 2]
    if odd:
        raise NotFluxError(f"{odd[0]} is no matrix")


# --- diffusers ---

_DOUBLE: Final = {
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
_DOUBLE_NORMS: Final = {
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
}
_SINGLE: Final = {
    "modulation.lin": ("norm.linear",),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
}
_SINGLE_NORMS: Final = {
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
}
_REST: Final = {
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
    "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
    "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
    "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
    "guidance_in.in_layer": ("time_text_embed.guidance_embedder.linear_1",),
    "guidance_in.out_layer": ("time_text_embed.guidance_embedder.linear_2",),
    "final_layer.linear": ("proj_out",),
}
_GUIDANCE: Final = {name for name in _REST if name.startswith("guidance_in.")}
"""What dev has and schnell has not."""

_ENDS: Final = {*_REST, "final_layer.adaLN_modulation.1"} - _GUIDANCE
"""The linear layers before and behind the blocks."""


def _from_diffusers(shapes: Shapes) -> Iterator[Target]:
    yield from _linears(shapes, _REST, "", "")
    for end in (".weight", ".bias"):
        # diffusers puts the scale before the shift, the published model the other way round.
        name = f"norm_out.linear{end}"
        if name in shapes:
            half = shapes[name][0] // 2
            swapped = (_piece(shapes, name, half, 2 * half), _piece(shapes, name, 0, half))
            yield Target(f"final_layer.adaLN_modulation.1{end}", shapes[name], swapped)
    for theirs, ours, linears, norms in (
        ("transformer_blocks", "double_blocks", _DOUBLE, _DOUBLE_NORMS),
        ("single_transformer_blocks", "single_blocks", _SINGLE, _SINGLE_NORMS),
    ):
        for index in _indexes(shapes, theirs):
            before, after = f"{theirs}.{index}.", f"{ours}.{index}."
            yield from _linears(shapes, linears, before, after)
            for norm, name in norms.items():
                full = f"{before}{name}.weight"
                if full in shapes:
                    yield Target(f"{after}{norm}.scale", shapes[full], (Piece(full),))


def _linears(
    shapes: Shapes, names: Mapping[str, tuple[str, ...]], before: str, after: str
) -> Iterator[Target]:
    for ours, theirs in names.items():
        for end in (".weight", ".bias"):
            parts = [f"{before}{part}{end}" for part in theirs]
            if not all(part in shapes for part in parts):
                continue
            rows = sum(shapes[part][0] for part in parts)
            shape = (rows, *shapes[parts[0]][1:])
            pieces = tuple(_piece(shapes, part) for part in parts)
            yield Target(f"{after}{ours}{end}", shape, pieces)


def _indexes(names: Iterable[str], kind: str) -> list[int]:
    found = {name.split(".")[1] for name in names if name.startswith(f"{kind}.")}
    return sorted(int(index) for index in found if index.isdecimal())
