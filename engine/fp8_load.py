"""Loads a FLUX.1 checkpoint in fp8: quantised by us, or as its author did."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import HotswapError, NotFluxError
from ..ops.fp8.layout import Piece, Target, is_block_linear, targets

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from torch import Tensor

    from ..ops.fp8.convert import Source
    from ..ops.fp8.matmul import Matmul

_FLOATS: Final = {"F32", "F16", "BF16"}
_E4M3: Final = "F8_E4M3"


@dataclass(frozen=True)
class Checkpoint:
    """A FLUX.1 file whose head was read.

    Attributes:
        source: the file and what its head says.
        targets: the tensors that ComfyUI runs.
        head: the bytes before the data.
    """

    source: Source
    targets: list[Target]
    head: bytes

    @property
    def quantised_as(self) -> list[str]:
        """The dtypes of the blocks' weights that are quantised already, as safetensors says."""
        return sorted({self.source.tensors[piece.name].dtype for piece in self._pieces} - _FLOATS)

    @property
    def is_ours_to_load(self) -> bool:
        """Whether the weights can be made e4m3, or are, with a scale for each or for each row.

        Other formats are the core's.
        """
        return not self.quantised_as or (self.quantised_as == [_E4M3] and self._has_row_scales)

    @property
    def _pieces(self) -> list[Piece]:
        linears = (target for target in self.targets if is_block_linear(target.name))
        return [piece for target in linears for piece in target.pieces]

    @property
    def _has_row_scales(self) -> bool:
        tensors = self.source.tensors
        for piece in self._pieces:
            if piece.scale is not None:
                scale = tensors[piece.scale]
                if scale.dtype not in _FLOATS:
                    return False
                if math.prod(scale.shape) not in (1, tensors[piece.name].shape[0]):
                    return False
        return True


def look_at(path: Path) -> Checkpoint:
    """Read the head of a file.

    Raises:
        HotswapError: it is no safetensors file, is cut off, or holds another model.
    """
    from ..errors import BadFileError
    from ..files import header
    from ..ops.fp8.convert import Source

    try:
        read = header.read(path)
    except BadFileError as error:
        raise HotswapError(str(error)) from error
    try:
        found = targets({name: entry.shape for name, entry in read.tensors.items()})
    except NotFluxError as error:
        raise HotswapError(
            f"{path.name} does not hold a FLUX.1 model ({error}); choose flux1-dev or flux1-schnell"
        ) from error
    with path.open("rb") as file:
        length = 8 + int.from_bytes(file.read(8), "little")
        file.seek(0)
        head = file.read(length)
    return Checkpoint(Source(path, read.tensors, length), found, head)


def stored_state(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return the tensors of a file that is e4m3 already, bit for bit, with a scale for each row.

    What is e4m3 outside of the blocks goes to bf16.
    """
    import torch

    from ..ops.fp8.convert import scale_name
    from ..ops.fp8.rows import FP8
    from .fp8_cache import load

    stored = load(checkpoint.source.path)
    state: dict[str, Tensor] = {}
    for target in checkpoint.targets:
        parts = [stored[piece.name][piece.start : piece.stop] for piece in target.pieces]
        if all(part.dtype != FP8 for part in parts):
            state[target.name] = torch.cat(parts) if len(parts) > 1 else parts[0]
            continue
        scales = [
            scales_of(stored, piece, len(part))
            for piece, part in zip(target.pieces, parts, strict=True)
        ]
        if is_block_linear(target.name) and all(part.dtype == FP8 for part in parts):
            state[target.name] = pile(parts)
            state[scale_name(target.name)] = torch.cat(scales)
        else:
            real = [
                part.to(torch.float32) * scale.reshape(-1, *[1] * (part.ndim - 1))
                for part, scale in zip(parts, scales, strict=True)
            ]
            state[target.name] = torch.cat(real).to(torch.bfloat16)
    return state


def scales_of(stored: Mapping[str, Tensor], piece: Piece, height: int) -> Tensor:
    """Return the scales of a piece's rows, [height,1] float32; 1 where the file has none."""
    import torch

    if piece.scale is None:
        return torch.ones((height, 1))
    scale = stored[piece.scale].to(torch.float32).reshape(-1, 1)
    rows = scale if len(scale) == 1 else scale[piece.start : piece.stop]
    return rows.expand(height, 1).contiguous()


def pile(parts: list[Tensor]) -> Tensor:
    """Return e4m3 tensors on top of each other; a single one is not copied."""
    import torch

    if len(parts) == 1:
        return parts[0]
    # Bytes, because torch cannot join e4m3 on every device.
    return torch.cat([part.view(torch.uint8) for part in parts]).view(parts[0].dtype)


def build(state: dict[str, Tensor], matmul: Matmul | None, name: str) -> ModelPatcher:
    """Return a model that computes with these tensors.

    Args:
        state: of a FLUX.1 model, weights in e4m3 with `weight_scale` beside them.
        matmul: multiplies in fp8; None stores only.
        name: of the file, for the error.

    Raises:
        HotswapError: ComfyUI does not know the model.
    """
    import comfy.sd
    import torch

    from .fp8_linear import fp8_operations

    options: Any = {"custom_operations": fp8_operations(matmul), "dtype": torch.bfloat16}
    load: Any = comfy.sd.load_diffusion_model_state_dict
    # Newer versions can leave the weights to a patcher that adds LoRAs while it copies them to the
    # card, and knows no formats but its own.
    extra = {"disable_dynamic": True} if "disable_dynamic" in signature(load) else {}
    patcher: ModelPatcher | None = load(state, model_options=options, **extra)
    if patcher is None or patcher.model.model_config.unet_config.get("image_model") != "flux":
        raise HotswapError(
            f"{name} does not hold a FLUX.1 model that this ComfyUI knows; "
            "choose flux1-dev or flux1-schnell"
        )
    return patcher


def signature(function: Any) -> set[str]:
    """Return the names of a function's parameters."""
    return set(inspect.signature(function).parameters)
