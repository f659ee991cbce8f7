"""LoRA files of every family and kind for the small FLUX, each with the change that it means.

The changes are written out here in float32, from the formulas of those who invented each kind, and
share no code with the pack or with ComfyUI.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import torch
from mini_flux import loras
from runtime.lora_spelled import SPELLINGS
from runtime.lora_states import NATIVE, PROJ, QKV, H, State, drawn, whole_change
from torch import Tensor

SIZE: Final = 0.05
"""Of a change, against its weight."""

Formula = Callable[[Tensor, State], Tensor]


@dataclass(frozen=True)
class File:
    """A file and what it means.

    Attributes:
        state: its tensors.
        changes: of weights and biases, in float32, by their published names.
        layer: where it is measured in int8.
        metadata: of its head.
    """

    state: State
    changes: State
    layer: str
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


# --- families: one change in every spelling ---


def families(weights: State) -> dict[str, File]:
    """Return a LoRA of rank 4 in every spelling.

    Args:
        weights: the model's, in float32, by their published names.
    """
    delta = sized_delta(loras.everything(), weights)
    attention = sized_delta(loras.attention(), weights)
    made = {name: File(spell(delta), changes_of(delta), QKV) for name, spell in SPELLINGS.items()}
    whole = loras.whole(attention)
    made["XLabs"] = File(loras.xlabs(attention), changes_of(whole), QKV)
    simple = loras.diffusers(delta, prefix="", sides=("lora_down", "lora_up"), alpha=2.0)
    names = {name: f"lycoris_{_underscored(name)}" for name in simple}
    lycoris = {names[name]: tensor for name, tensor in simple.items()}
    made["LyCORIS, LoCon of linear layers"] = File(lycoris, changes_of(delta), QKV)
    return made


def sized_delta(delta: loras.Delta, weights: State) -> loras.Delta:
    """Return a change of which every layer's has the size."""
    made: loras.Delta = {}
    for name, part in delta.items():
        weight = weights[f"{name.removesuffix('_qkv')}.weight"]
        share = SIZE * weight.norm() / (part.up @ part.down).norm()
        made[name] = loras.Part(part.down, part.up * share)
    return made


def changes_of(delta: loras.Delta) -> State:
    """Return the changes of weights."""
    return {f"{name}.weight": whole_change(delta, name) for name in delta}


def _underscored(name: str) -> str:
    module, slot = name.rsplit(".alpha", 1)[0], ".alpha"
    if not name.endswith(slot):
        module, _, rest = name.partition(".lora_")
        slot = f".lora_{rest}"
    return module.replace(".", "_") + slot


# --- kinds: the ways to write a change ---


def _pair(_: Tensor, slots: State) -> Tensor:
    return slots["lora_up.weight"] @ slots["lora_down.weight"]


def _loha(_: Tensor, slots: State) -> Tensor:
    first, second = (slots[f"hada_w{n}_a"] @ slots[f"hada_w{n}_b"] for n in "12")
    return first * second


def _lokr(_: Tensor, slots: State) -> Tensor:
    right = slots.get("lokr_w2")
    if right is None:  # alpha 1, rank 2
        right = slots["lokr_w2_a"] @ slots["lokr_w2_b"] / 2
    return torch.kron(slots["lokr_w1"], right)


def _glora(weight: Tensor, slots: State) -> Tensor:
    a1, a2, b1, b2 = (slots[f"{name}.weight"] for name in ("a1", "a2", "b1", "b2"))
    return weight @ a1 @ a2 + b1 @ b2


def _difference(_: Tensor, slots: State) -> Tensor:
    return slots["diff"]


def _dylora(_: Tensor, slots: State) -> Tensor:
    """Alpha is divided by the number of blocks: 4 ranks in blocks of 2 are two."""
    return _pair(_, slots) * float(slots["alpha"]) / 2


def _rotations(blocks: Tensor) -> Tensor:
    """Cayley's transform of the skew parts: rotations."""
    skew = blocks - blocks.mT
    one = torch.eye(blocks.shape[-1])
    return (one + skew) @ torch.linalg.inv(one - skew)


def _oft(weight: Tensor, slots: State) -> Tensor:
    turn = torch.block_diag(*_rotations(slots["oft_blocks"]))
    return turn.T @ weight - weight


def _boft(weight: Tensor, slots: State) -> Tensor:
    """A butterfly: each stage turns rows that lie twice as far apart as the one before."""
    made = weight
    for stage, turns in enumerate(_rotations(slots["oft_blocks"])):
        apart = 2**stage * turns.shape[-1] // 2
        order = torch.arange(len(weight)).reshape(-1, 2, apart).mT.flatten()
        whole = torch.zeros(len(weight), len(weight))
        whole[order[:, None], order] = torch.block_diag(*turns)
        made = whole @ made
    return made * slots.get("rescale", 1.0) - weight


def _dora(axis: int) -> Formula:
    """Return DoRA's formula with lengths of rows (0) or columns (1)."""

    def change(weight: Tensor, slots: State) -> Tensor:
        moved = weight + _pair(weight, slots)
        lengths = slots["dora_scale"] if "dora_scale" in slots else slots["magnitude"][:, None]
        return lengths * moved / moved.square().sum(dim=1 - axis, keepdim=True).sqrt() - weight

    return change


PAIR: Final = {"lora_up.weight": drawn(H, 4), "lora_down.weight": drawn(4, H)}
_BLOCKS: Final = {"oft_blocks": drawn(8, H // 8, H // 8, size=0.003)}
_BUTTERFLY: Final = {"oft_blocks": drawn(2, H // 8, 8, 8, size=0.008)}

KINDS: Final[Mapping[str, tuple[Formula, State, tuple[str, ...]]]] = {
    "LoRA": (_pair, PAIR, ("lora_up.weight",)),
    "LoHa": (
        _loha,
        {f"hada_w{n}_{side}": drawn(*((H, 2) if side == "a" else (2, H))) for n in "12"
         for side in "ab"},
        ("hada_w1_a",),
    ),
    "LoKr": (_lokr, {"lokr_w1": drawn(8, 8), "lokr_w2": drawn(H // 8, H // 8)}, ("lokr_w1",)),
    "LoKr in factors": (
        _lokr,
        {
            "lokr_w1": drawn(8, 8),
            "lokr_w2_a": drawn(H // 8, 2),
            "lokr_w2_b": drawn(2, H // 8),
            "alpha": torch.tensor(1.0),
        },
        ("lokr_w1",),
    ),
    "GLoRA": (
        _glora,
        {
            "a1.weight": drawn(H, 2),
            "a2.weight": drawn(2, H),
            "b1.weight": drawn(H, 2),
            "b2.weight": drawn(2, H),
        },
        ("a2.weight", "b2.weight"),
    ),
    "OFT": (_oft, _BLOCKS, ()),
    "BOFT": (_boft, _BUTTERFLY, ()),
    "BOFT with rescale": (_boft, {**_BUTTERFLY, "rescale": 1 + drawn(H, 1, size=0.02)}, ()),
    "full, a whole difference": (_difference, {"diff": drawn(H, H)}, ("diff",)),
    "DyLoRA": (_dylora, {**PAIR, "alpha": torch.tensor(3.0)}, ("lora_up.weight",)),
}  # fmt: skip
"""Of each kind the formula, the tensors, and those of them that a change is proportional to."""

_DYLORA_HEAD: Final = {"ss_network_args": json.dumps({"algo": "dylora", "block_size": 2})}


def kinds(weights: State) -> dict[str, File]:
    """Return a file of every kind that changes one layer.

    Args:
        weights: the model's, in float32, by their published names.
    """
    weight, made = weights[f"{PROJ}.weight"], {}
    for name, (formula, slots, linear) in KINDS.items():
        share = SIZE * weight.norm() / formula(weight, slots).norm()
        sized = {slot: value * share if slot in linear else value for slot, value in slots.items()}
        head = _DYLORA_HEAD if name == "DyLoRA" else {}
        made[name] = _file(sized, formula(weight, sized), head)
    up = PAIR["lora_up.weight"] * (SIZE * weight.norm() / _pair(weight, PAIR).norm())
    pair = {**PAIR, "lora_up.weight": up}
    for axis, which in enumerate(("rows", "columns")):
        norm = weight.norm(dim=1 - axis, keepdim=True)
        scale = norm * (1 + drawn(*norm.shape, size=0.02))
        slots = {**pair, "dora_scale": scale}
        made[f"DoRA of {which}, dora_scale"] = _file(slots, _dora(axis)(weight, slots), {})
    slots = {**pair, "magnitude": weight.norm(dim=1) * (1 + drawn(H, size=0.02))}
    made["DoRA of rows, PEFT's"] = _file(slots, _dora(0)(weight, slots), {})
    return made


def _file(slots: State, change: Tensor, head: Mapping[str, str]) -> File:
    state = {f"{NATIVE}.{slot}": value for slot, value in slots.items()}
    return File(state, {f"{PROJ}.weight": change}, PROJ, head)


# --- files that are refused ---


def _pairs(*modules: str, height: int = H, width: int = H) -> State:
    return {
        f"{module}.lora_{side}.weight": drawn(*shape)
        for module in modules
        for side, shape in (("A", (4, width)), ("B", (height, 4)))
    }


_DOUBLE: Final = "transformer.transformer_blocks.{}"


def refused() -> dict[str, File]:
    """Return files of other models, of which a part fits FLUX.1, and files that are not whole."""
    qkv = "transformer.transformer_blocks.0.attn.to_q"
    states = {
        "Qwen-Image": _pairs(*(f"{_DOUBLE.format(n)}.attn.to_q" for n in range(60))),
        "FLUX.2": _pairs(qkv, f"{_DOUBLE.format(0)}.ff.linear_in"),
        "HunyuanVideo": _pairs(
            f"lora_unet_{PROJ.replace('.', '_')}", "lora_unet_double_blocks_0_img_mlp_fc1"
        ),
        "Chroma": _pairs(NATIVE, "diffusion_model.distilled_guidance_layer.in_proj"),
        "LTX-Video": _pairs(
            f"{_DOUBLE.format(0)}.attn.to_out.0", f"{_DOUBLE.format(0)}.attn2.to_q"
        ),
        "Wan": _pairs("diffusion_model.blocks.0.self_attn.q"),
        "SDXL": _pairs("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"),
        "FLUX.1 Canny": _pairs(NATIVE) | _pairs("diffusion_model.img_in", width=128),
        "half a pair": _pairs(qkv) | {f"{NATIVE}.lora_A.weight": drawn(4, H)},
        "infinite numbers": _pairs(qkv) | {f"{NATIVE}.diff": drawn(H, H) / 0},
        "one weight under two names": _pairs(NATIVE, f"lora_unet_{PROJ.replace('.', '_')}"),
    }
    return {name: File(state, {}, PROJ) for name, state in states.items()}
