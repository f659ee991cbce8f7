"""Room on the card for what ComfyUI does not know of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

ROOM: Final = 1536 * 2**20
"""Bytes that are made free before the loader computes on the card. The trial holds 0.7e9 in bf16
and 0.94e9 in float32; else it is some float32 copies of a layer of FLUX.1."""


def make_room(device: torch.device) -> None:
    """Let ComfyUI move models off the card until `ROOM` is free.

    Args:
        device: the card; nothing is moved for a processor.
    """
    import comfy.model_management

    if device.type != "cpu":
        comfy.model_management.free_memory(ROOM, device)


def taller(model: Any, shape: Sequence[int], size: int) -> list[int]:
    """Return a latent's shape [B,C,H,W] for which ComfyUI keeps `size` bytes more free.

    It counts what a latent needs and nothing else, so what else is put on the card is told as rows.

    Args:
        model: ComfyUI's, such as `ModelPatcher.model`.
        shape: of the latent that is drawn.
        size: bytes.
    """
    row = model.memory_required(list(shape)) / shape[2]
    return [*shape[:2], shape[2] + math.ceil(max(0, size) / row), *shape[3:]]
