"""Which tensors of a file are a FLUX.1 model's, and what the file is if they are not."""

from __future__ import annotations

import pytest
import torch
from flux_files import LAYOUTS, PREFIX, laid_out, shapes_of, tiny
from torch import Tensor

from flux_hotswap.errors import NotFluxError
from flux_hotswap.ops.checkpoint.layout import (
    Piece,
    Target,
    is_block_linear,
    is_modulation,
    targets,
)

STATE = tiny()
SHAPES = shapes_of(STATE)


def put_together(state: dict[str, Tensor], target: Target) -> Tensor:
    return torch.cat([state[piece.name][piece.start : piece.stop] for piece in target.pieces])


@pytest.mark.parametrize("guidance", [True, False], ids=["dev", "schnell"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_layouts_are_the_same_model(layout: str, guidance: bool) -> None:
    wanted = tiny(guidance=guidance)
    state = laid_out(wanted, layout)
    found = {target.name: target for target in targets(shapes_of(state))}
    assert found.keys() == wanted.keys()
    for name, target in found.items():
        assert target.shape == tuple(wanted[name].shape), name
        assert torch.equal(put_together(state, target), wanted[name]), name
        assert all(piece.scale is None for piece in target.pieces)


def test_a_prefix_without_model() -> None:
    found = targets({f"diffusion_model.{name}": shape for name, shape in SHAPES.items()})
    assert {target.name for target in found} == SHAPES.keys()


def test_which_are_linear_layers_of_blocks() -> None:
    linear = {name for name in SHAPES if is_block_linear(name)}
    assert linear == {
        name for name, shape in SHAPES.items() if "blocks." in name and len(shape) == 2
    }
    modulation = {name for name in linear if is_modulation(name)}
    assert modulation == {name for name in linear if "_mod." in name or "modulation" in name}
    assert len(modulation) == 6
    assert not is_block_linear("final_layer.adaLN_modulation.1.weight")
    assert not is_block_linear("double_blocks.0.img_attn.qkv.bias")


# --- scales of files that are quantised already ---

QKV = "double_blocks.0.img_attn.qkv"


@pytest.mark.parametrize("end", ["weight_scale", "scale_weight"])
@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_scales_belong_to_their_weights(prefix: str, end: str) -> None:
    more = {f"{QKV}.{end}": (), f"{QKV}.input_scale": (), f"{QKV}.comfy_quant": (60,)}
    more |= {"scaled_fp8": (2,), f"{QKV}.scale_input": ()}
    shapes = {prefix + name: shape for name, shape in (SHAPES | more).items()}
    found = {target.name: target for target in targets(shapes)}
    assert found.keys() == SHAPES.keys()
    (piece,) = found[f"{QKV}.weight"].pieces
    assert piece == Piece(f"{prefix}{QKV}.weight", scale=f"{prefix}{QKV}.{end}")
    assert found[f"{QKV}.bias"].pieces[0].scale is None


def test_scales_in_diffusers_names_belong_to_their_pieces() -> None:
    names = [f"transformer_blocks.0.attn.to_{letter}.weight_scale" for letter in "qkv"]
    shapes = shapes_of(laid_out(STATE, "diffusers")) | dict.fromkeys(names, ())
    found = {target.name: target for target in targets(shapes)}
    assert [piece.scale for piece in found[f"{QKV}.weight"].pieces] == names
    assert {piece.scale for piece in found[f"{QKV}.bias"].pieces} == {None}


# --- other models ---

OTHERS = {
    "FLUX.2": (
        {"double_stream_modulation_img.lin.weight": (1, 1), "img_in.weight": (1, 1)},
        "it holds FLUX.2",
    ),
    "Chroma": ({"distilled_guidance_layer.in_proj.weight": (1, 1)}, "it holds Chroma"),
    "SD3": (
        {f"{PREFIX}joint_blocks.0.x_block.attn.qkv.weight": (1, 1)},
        "it holds Stable Diffusion 3",
    ),
    "SDXL": (
        {f"{PREFIX}input_blocks.0.0.weight": (320, 4, 3, 3)},
        "it holds Stable Diffusion or SDXL",
    ),
    "PixArt": (
        {"transformer_blocks.0.attn.to_q.weight": (1, 1)},
        "it holds another transformer in diffusers' names",
    ),
    "unknown": ({"a.weight": (1,)}, "its tensors are those of another model"),
    "a LoRA": (
        {"transformer.transformer_blocks.0.attn.to_q.lora_A.weight": (4, 4)},
        "its tensors are those of another model",
    ),
}


@pytest.mark.parametrize(("shapes", "words"), OTHERS.values(), ids=list(OTHERS))
def test_other_models_are_named(shapes: dict[str, tuple[int, ...]], words: str) -> None:
    with pytest.raises(NotFluxError, match=words):
        targets(shapes)


# Chroma has FLUX's blocks without their modulation.
@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_chroma_is_not_flux(prefix: str) -> None:
    shapes = {name: shape for name, shape in SHAPES.items() if "mod" not in name}
    shapes["distilled_guidance_layer.in_proj.weight"] = (1, 1)
    with pytest.raises(NotFluxError, match="Chroma"):
        targets({prefix + name: shape for name, shape in shapes.items()})


# What its layout is known by is gone with these.
KNOWN_BY = {"double_blocks.0.img_mod.lin.weight", "double_blocks.0.txt_attn.qkv.weight"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_tensor_that_is_missing_is_named(layout: str) -> None:
    """A part of a split checkpoint is not a model."""
    whole = shapes_of(laid_out(STATE, layout))
    pieces = {target.name: target.pieces[-1].name for target in targets(whole)}
    assert pieces.keys() == SHAPES.keys()
    for name, piece in pieces.items():
        shapes = {key: shape for key, shape in whole.items() if key != piece}
        with pytest.raises(NotFluxError) as refused:
            targets(shapes)
        assert f"it lacks {name}" in str(refused.value) or name in KNOWN_BY, name


@pytest.mark.parametrize("kind", ["double_blocks", "single_blocks"])
def test_a_block_that_is_missing_is_named(kind: str) -> None:
    shapes = {name.replace(f"{kind}.1", f"{kind}.2"): shape for name, shape in SHAPES.items()}
    with pytest.raises(NotFluxError, match=rf"it lacks {kind}\.1"):
        targets(shapes)


def test_a_model_without_single_blocks_is_none() -> None:
    shapes = {name: shape for name, shape in SHAPES.items() if "single_blocks" not in name}
    with pytest.raises(NotFluxError, match=r"it lacks single_blocks\.0"):
        targets(shapes)


def test_odd_indexes_cost_no_time() -> None:
    odd = {f"double_blocks.{index}.img_mod.lin.weight": (1, 1) for index in (10**12, "x")}
    with pytest.raises(NotFluxError, match="it lacks"):
        targets(SHAPES | odd)


def test_many_missing_are_counted() -> None:
    shapes = {name: shape for name, shape in SHAPES.items() if "single_blocks.1" not in name}
    shapes["single_blocks.1.linear1.weight"] = (1, 1)
    with pytest.raises(NotFluxError, match=r"and \d+ more"):
        targets(shapes)


def test_a_weight_that_is_no_matrix_is_named() -> None:
    with pytest.raises(NotFluxError, match=r"single_blocks\.1\.linear1\.weight is no matrix"):
        targets(SHAPES | {"single_blocks.1.linear1.weight": (4,)})
