"""What the tests have in common that compare with the libraries that write LoRA files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]


@dataclass(frozen=True)
class Written:
    """A file that a library wrote, and what the library itself makes of it.

    Attributes:
        path: of the file.
        changes: of every weight and bias of the network's layers, by their names there.
    """

    path: Path
    changes: State


@contextmanager
def seeded() -> Iterator[None]:
    """Let libraries draw the same numbers each time, and torch's go on after that as before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        yield


def answers(layers: Mapping[str, Any]) -> State:
    """Return weights and biases of layers, from what they make of nothing and of unit vectors."""
    made: State = {}
    for name, layer in layers.items():
        width = layer.in_features
        out = layer(torch.cat([torch.zeros(1, width), torch.eye(width)]))
        made[f"{name}.bias"] = out[0]
        made[f"{name}.weight"] = (out[1:] - out[0]).T
    return made
