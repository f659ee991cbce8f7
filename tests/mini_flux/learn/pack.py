"""Make the trained files small enough for the repository.

They are safetensors files under xz. Weights are bf16 and the rows of words that the world never
uses are nothing, so that they take no room; `trained.py` unpacks them.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

State = Mapping[str, Tensor]

FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 3, "lp": 1, "pb": 1}]
"""Tuned to numbers of two bytes, of which the second holds the exponent."""


def as_bf16(state: State) -> dict[str, Tensor]:
    """The tensors of a file as it is stored."""
    return {name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in state.items()}


def only_rows(table: Tensor, used: Iterable[int]) -> Tensor:
    """An embedding table in which every row but the used ones is nothing."""
    kept = torch.zeros_like(table)
    index = torch.tensor(sorted(set(used)))
    kept[index] = table[index]
    return kept


def write(state: State, path: Path) -> int:
    """Write a packed file, return its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = lzma.compress(save(as_bf16(state), {"format": "pt"}), lzma.FORMAT_XZ, filters=FILTERS)
    path.write_bytes(data)
    return len(data)
