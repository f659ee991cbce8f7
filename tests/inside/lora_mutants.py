"""Files with one thing wrong: refused in words, or applied without an error of the core's."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from runtime import inside
from runtime.lora_states import KINDS, NATIVE, State, changes
from torch import Tensor

DTYPES = [
    *(torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
    *(torch.int8, torch.int64, torch.bool, torch.uint8),
]


def shape(source: random.Random, tensor: Tensor) -> Tensor:
    """Another size in one of its dimensions."""
    sizes = list(tensor.shape) or [1]
    sizes[source.randrange(len(sizes))] = source.choice([0, 1, 2, 3, 7, 255, 512])
    return torch.ones(sizes)


def turned(_: random.Random, tensor: Tensor) -> Tensor:
    return tensor.transpose(0, -1) if tensor.ndim else tensor


def more(source: random.Random, tensor: Tensor) -> Tensor:
    """A dimension more, somewhere."""
    return tensor.unsqueeze(source.randrange(tensor.ndim + 1))


def flat(_: random.Random, tensor: Tensor) -> Tensor:
    return tensor.flatten()


def one(_: random.Random, tensor: Tensor) -> Tensor:
    return tensor.flatten()[0]


def dtype(source: random.Random, tensor: Tensor) -> Tensor:
    return tensor.to(source.choice(DTYPES))


def number(source: random.Random, tensor: Tensor) -> Tensor:
    made = tensor.clone().flatten()
    made[source.randrange(len(made))] = source.choice([float("nan"), float("inf"), 0.0])
    return made.reshape(tensor.shape)


CHANGES: list[Callable[[random.Random, Tensor], Tensor]] = [
    *(shape, turned, more, flat, one, dtype, number),
]
ADDED: State = {
    "alpha": torch.tensor(2.0),
    "dora_scale": torch.ones(256, 1),
    "lora_magnitude_vector": torch.ones(256),
    "lora_B.bias": torch.ones(256),
    "diff_b": torch.ones(256),
    "lora_mid.weight": torch.ones(4, 4),
    "rescale": torch.ones(256, 1),
    "hada_t1": torch.ones(2, 2),
    "lokr_t2": torch.ones(2, 2, 1, 1),
    "set_weight": torch.ones(256, 256),
}


SETTINGS = {"lora_adapter_metadata": json.dumps({"lora_alpha": 8, "r": 4, "use_rslora": True})}
"""What diffusers writes into the head of a file."""


def mutated(source: random.Random) -> State:
    slots = dict(source.choice(list(KINDS.values())))
    for name in source.sample(list(ADDED), source.choice([0, 0, 1, 2])):
        slots.setdefault(name, ADDED[name])
    name = source.choice(list(slots))
    if source.random() < 0.2:
        del slots[name]
    else:
        slots[name] = source.choice(CHANGES)(source, slots[name])
    return {f"{NATIVE}.{slot}": value for slot, value in slots.items()}


@pytest.mark.parametrize("seed", range(300))
def test_a_mutant_is_refused_or_applied(
    applied: Any, weights: State, caplog: Any, seed: int
) -> None:
    state = mutated(random.Random(seed))
    if not state:
        return
    error = inside.pack("errors").HotswapError
    try:
        made, fit = applied(state, metadata=SETTINGS if seed % 2 else None)
    except error as refused:
        assert "some.safetensors" in str(refused)
        return
    change = changes(made, weights, caplog)  # which hears what the core logs
    assert change
    assert all(torch.isfinite(value).all() for value in change.values())
    describe = inside.pack("ops.lora.fit").describe
    assert fit.matched == len(state) or len(describe(fit, has_clip=False)) > 1


@pytest.mark.parametrize("added", [{}, {"alpha": 2.0, "lora_B.bias": torch.ones(256)}], ids=len)
@pytest.mark.parametrize("metadata", [None, SETTINGS], ids=["bare", "with settings"])
def test_a_lone_number_is_no_factor(applied: Any, added: dict[str, Any], metadata: Any) -> None:
    slots = {"lora_A.weight": 1.0, "lora_B.weight": torch.ones(256, 2), **added}
    state = {f"{NATIVE}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    try:
        words = str(applied(state, metadata=metadata)[1].misfits)
    except inside.pack("errors").LoraError as refused:
        words = str(refused)
    assert "ranks 2 and 1" in words
