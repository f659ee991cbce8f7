"""What each tensor of a LoRA file is for, and which files are not whole."""

from __future__ import annotations

import pytest
import torch
from mini_flux import loras
from torch import Tensor

from flux_hotswap.ops.lora.names import convert
from flux_hotswap.ops.lora.parts import KINDS, Module, kind_of, slots_of, split
from flux_hotswap.ops.lora.whole import broken, not_finite

M = "diffusion_model.double_blocks.0.img_attn.proj"

SPELLED = {
    "lora_up.weight": "up",
    "lora_down.weight": "down",
    "lora_B.weight": "up",
    "lora_A.weight": "down",
    "lora.up.weight": "up",
    "lora.down.weight": "down",
    "lora_linear_layer.up.weight": "up",
    "lora_linear_layer.down.weight": "down",
    "lora_B": "up",
    "lora_A": "down",
    "lora_B.bias": "up_bias",
    "lora_mid.weight": "mid",
    "alpha": "alpha",
    "dora_scale": "dora_scale",
    "magnitude": "magnitude",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
    "lora_magnitude_vector.default": "magnitude",
    "lora_magnitude_vector.my-style.weight": "magnitude",
    "diff": "diff",
    "diff_b": "diff_b",
    "w_norm": "w_norm",
    "b_norm": "b_norm",
    "set_weight": "set_weight",
    "hada_w1_a": "hada_w1_a",
    "hada_t2": "hada_t2",
    "lokr_w1": "lokr_w1",
    "lokr_w2_b": "lokr_w2_b",
    "a1.weight": "a1",
    "b2.weight": "b2",
    "oft_blocks": "oft_blocks",
    "rescale": "rescale",
}


@pytest.mark.parametrize(("spelled", "slot"), SPELLED.items(), ids=list(SPELLED))
def test_a_tensor_has_a_slot(spelled: str, slot: str) -> None:
    tensor = torch.ones(1)
    modules = split({f"{M}.{spelled}": tensor}, {f"{M}.{spelled}": "in the file"})
    assert modules == {M: Module(M, {slot: tensor}, {slot: "in the file"})}


@pytest.mark.parametrize("name", [f"{M}.weight", f"{M}.lora_C.weight", f"{M}.other", "alpha", ""])
def test_what_is_for_nothing_has_none(name: str) -> None:
    assert split({name: torch.ones(1)}, {}) == {}


@pytest.mark.parametrize("family", loras.FAMILIES.values(), ids=list(loras.FAMILIES))
def test_all_of_every_spelling_is_used(
    family: loras.Callable[[loras.Delta], loras.State],
) -> None:
    raw = family(loras.everything())
    state = convert(raw)
    modules = split(state, dict(zip(state, raw, strict=True)))
    used: set[str] = set()
    for module in modules.values():
        kind = kind_of(module)
        assert kind is not None
        used |= module.named(slots_of(module, kind) or ())
    assert used == raw.keys()


def module(text: str) -> Module:
    slots = text.split()
    return Module(M, {slot: torch.ones(1, 1) for slot in slots}, {slot: slot for slot in slots})


USES = {
    "a pair": ("up down alpha dora_scale", "lora", "up down alpha dora_scale"),
    "a pair with biases": ("up down up_bias diff_b", "lora", "up down"),
    "magnitudes in two spellings": ("up down dora_scale magnitude", "lora", "up down magnitude"),
    "LoHa": ("hada_w1_a hada_w1_b hada_w2_a hada_w2_b", "loha", None),
    "LoKr": ("lokr_w1 lokr_w2 alpha", "lokr", None),
    "LoKr, one in factors": ("lokr_w1 lokr_w2_a lokr_w2_b alpha", "lokr", None),
    "LoKr, the same in two ways": (
        "lokr_w1 lokr_w1_a lokr_w1_b lokr_w2",
        "lokr",
        "lokr_w1 lokr_w2",
    ),
    "GLoRA": ("a1 a2 b1 b2 alpha", "glora", None),
    "OFT": ("oft_blocks rescale alpha", "oft", None),
    "a difference": ("diff diff_b", "diff", "diff"),
    "a norm": ("w_norm b_norm", "diff", "w_norm"),
    "two ways at once": ("up down diff", "lora", "up down"),
}


@pytest.mark.parametrize(("slots", "name", "used"), USES.values(), ids=list(USES))
def test_what_a_module_uses(slots: str, name: str, used: str | None) -> None:
    made = module(slots)
    kind = kind_of(made)
    assert kind is not None
    assert kind.name == name
    assert slots_of(made, kind) == set((used or slots).split())
    assert broken(made) is None


@pytest.mark.parametrize("slots", ["alpha", "dora_scale", "diff_b", "up_bias", "mid", "rescale"])
def test_what_is_no_change_of_a_weight(slots: str) -> None:
    assert kind_of(module(slots)) is None
    assert broken(module(slots)) is None


HALVES = {
    "up": ("up alpha", "up has no lora_down (or lora_A)"),
    "down": ("down", "down has no lora_up (or lora_B)"),
    "LoKr, the first": ("lokr_w1", "lokr_w1 has no lokr_w2 "),
    "LoKr, the second": ("lokr_w2 alpha", "lokr_w2 has no lokr_w1 "),
    "LoKr, a factor's half": ("lokr_w1_a lokr_w2", "lokr_w1_a has no lokr_w1 "),
    "LoHa, one": ("hada_w1_a", "hada_w1_a has no hada_w1_b and hada_w2_a and hada_w2_b"),
    "LoHa, three": ("hada_w1_a hada_w1_b hada_w2_a", "hada_w1_a has no hada_w2_b"),
    "LoHa, one core": (
        "hada_w1_a hada_w1_b hada_w2_a hada_w2_b hada_t1",
        "hada_t1 has no hada_t2",
    ),
    "GLoRA": ("a1 b1 b2", "a1 has no a2"),
}


@pytest.mark.parametrize(("slots", "words"), HALVES.values(), ids=list(HALVES))
def test_half_a_module_is_seen(slots: str, words: str) -> None:
    assert words in (broken(module(slots)) or "")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.name}, {min(kind.marks)}")
def test_a_kind_with_any_one_part_missing_is_seen(kind: object) -> None:
    """Whatever way it is written in; a pair of whole factors has no other way."""
    assert isinstance(kind, type(KINDS[0]))
    first = [slot for row in kind.needs for slot in row[0]]
    assert broken(module(" ".join(first))) is None
    for slot in first if len(first) > 1 else []:
        assert broken(module(" ".join(set(first) - {slot})))


@pytest.mark.parametrize(
    ("slot", "tensor", "words"),
    [
        ("down", torch.ones(0, 4), "down is empty (0x4)"),
        ("up", torch.ones(4, 0), "up is empty (4x0)"),
        ("alpha", torch.ones(4), "alpha is 4 numbers"),
        ("alpha", torch.ones(0), "alpha is empty"),
        ("alpha", torch.ones(1, 1), None),
        ("alpha", torch.tensor(3), None),
    ],
)
def test_odd_tensors_are_seen(slot: str, tensor: Tensor, words: str | None) -> None:
    made = module("up down alpha")
    made.parts[slot] = tensor
    problem = broken(made)
    assert problem is None if words is None else words in (problem or "")


DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_found(dtype: torch.dtype, number: float) -> None:
    bad = torch.ones(3, 5)
    bad[2, 4] = number
    good = {"a": torch.full((2, 2), 400.0).to(dtype), "b": torch.ones(2, dtype=torch.int8)}
    assert not_finite(good) is None
    if dtype == torch.float8_e4m3fn and number == number:  # it has no infinity
        return
    assert not_finite({**good, "c": bad.to(dtype)}) == "c"
