"""DyLoRA is known by the file's head alone, and its alpha is what LyCORIS makes of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from flux_hotswap.ops.lora.dylora import block_of, multiply_alphas
from flux_hotswap.ops.lora.parts import Module


def head(**arguments: Any) -> dict[str, str]:
    return {"ss_network_args": json.dumps(arguments), "ss_network_module": "lycoris.kohya"}


@pytest.mark.parametrize(
    ("metadata", "block"),
    [
        (head(algo="dylora", block_size="8"), 8),
        (head(algo="DyLoRA", block_size=2), 2),
        (head(algo="dylora"), 4),
        (head(algo="dylora", block_size="0"), 4),
        (head(algo="dylora", block_size="many"), 4),
        (head(algo="dylora", block_size="9" * 50), 4),
        (head(algo="lora", block_size="8"), None),
        (head(), None),
        ({"ss_network_args": "{"}, None),
        ({"ss_network_args": "[]"}, None),
        ({"ss_network_args": "[" * 100_000}, None),
        ({}, None),
    ],
)
def test_the_head_tells_the_block(metadata: dict[str, str], block: int | None) -> None:
    assert block_of(metadata) == block


@pytest.mark.parametrize(("rank", "block"), [(4, 4), (8, 4), (8, 2), (16, 1)])
def test_a_module_is_what_lycoris_makes_of_all_its_blocks(rank: int, block: int) -> None:
    up, down = torch.randn(6, rank), torch.randn(rank, 5)
    alpha = torch.tensor(3.0, dtype=torch.bfloat16)
    module = Module("x", {"up": up, "down": down, "alpha": alpha})
    others = Module("y", {"lokr_w1": up, "alpha": alpha}), Module("z", {"up": up, "down": down})
    multiply_alphas([module, *others], block)
    forward = up @ down * (3.0 / (rank // block))
    made = up @ down * (float(module.parts["alpha"]) / rank)
    torch.testing.assert_close(made, forward)
    assert others[0].parts["alpha"] is alpha
    assert "alpha" not in others[1].parts
