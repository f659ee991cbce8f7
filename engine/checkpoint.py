"""A FLUX.1 checkpoint: what its header says, and the model that its tensors make."""

from __future__ import annotations

import inspect
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import CheckpointError, NotFluxError
from ..ops.checkpoint.layout import Piece, Target, is_block_linear, targets

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher
    from torch import Tensor

    from ..ops.checkpoint.convert import Source
    from .int8_linear import Matmul

_FLOATS: Final = {"F32", "F16", "BF16"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A FLUX.1 file whose head was read.

    Attributes:
        source: the file and what its head says.
        targets: the tensors that ComfyUI runs; none of a file of the hosted fast engine.
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
    def is_hosted(self) -> bool:
        """Whether it is in the format of the hosted fast engine."""
        from ..ops.checkpoint.hosted_file import is_hosted_file

        return is_hosted_file(self.source.tensors)

    @property
    def values(self) -> int:
        """How many numbers the model has."""
        return sum(math.prod(target.shape) for target in self.targets)

    def check_scales(self) -> None:
        """Check the scales of weights in fp8, of which ComfyUI itself says nothing until it draws.

        Raises:
            CheckpointError: some are for other parts of a weight than ComfyUI has scales for.
        """
        tensors = self.source.tensors
        for piece in self._pieces:
            weight, scale = tensors[piece.name], tensors.get(piece.scale or "")
            if scale is None or not weight.dtype.startswith("F8_") or scale.dtype not in _FLOATS:
                continue  # formats with scales for blocks, such as mxfp8, have those in 8 bit
            if scale.shape not in ((), (1,), (1, 1), (*weight.shape[:1], 1)):
                raise CheckpointError(
                    f"{self.source.path.name} cannot be used: {piece.scale} is {scale.dtype} "
                    f"{list(scale.shape)}; ComfyUI knows one scale for a weight or one for each "
                    "row. Choose flux1-dev or flux1-schnell"
                )

    @property
    def _pieces(self) -> list[Piece]:
        linears = (target for target in self.targets if is_block_linear(target.name))
        return [piece for target in linears for piece in target.pieces]


def look_at(path: Path) -> Checkpoint:
    """Read the head of a file.

    Raises:
        CheckpointError: it is no safetensors file, is cut off, or holds another model.
    """
    from ..errors import BadFileError
    from ..files import header
    from ..ops.checkpoint.convert import Source
    from ..ops.checkpoint.hosted_file import check, is_hosted_file

    try:
        read = header.read(path)
    except BadFileError as error:
        raise CheckpointError(str(error)) from error
    source = Source(path, read.tensors, read.base)
    if is_hosted_file(read.tensors):
        check(read.tensors, path.name)
        return Checkpoint(source, [], read.head)
    try:
        found = targets({name: entry.shape for name, entry in read.tensors.items()})
    except NotFluxError as error:
        raise CheckpointError(
            f"{path.name} does not hold a FLUX.1 model ({error}); choose flux1-dev or flux1-schnell"
        ) from error
    made = Checkpoint(source, found, read.head)
    made.check_scales()
    return made


def build(state: dict[str, Tensor], matmul: Matmul | None, name: str) -> ModelPatcher:
    """Return a model that computes with these tensors through our own layers.

    Args:
        state: of a FLUX.1 model, weights in int8 with `weight_scale` beside them.
        matmul: multiplies in int8; None stores only.
        name: of the file, for the error.

    Raises:
        CheckpointError: ComfyUI does not know the model.
    """
    from .int8_linear import int8_operations

    return with_layers(state, int8_operations(matmul), name)


def with_layers(state: dict[str, Tensor], operations: type, name: str) -> ModelPatcher:
    """Return a model that computes with these tensors through layers of this pack.

    Args:
        state: of a FLUX.1 model.
        operations: that make the layers.
        name: of the file, for the error.

    Raises:
        CheckpointError: ComfyUI does not know the model.
    """
    import comfy.sd
    import torch

    options: Any = {"custom_operations": operations, "dtype": torch.bfloat16}
    load: Any = comfy.sd.load_diffusion_model_state_dict
    # Newer versions can leave the weights to a patcher that adds LoRAs while it copies them to the
    # card, and knows no layers but its own.
    extra = {"disable_dynamic": True} if "disable_dynamic" in signature(load) else {}
    made = checked(load(state, model_options=options, **extra), name)
    if is_dynamic(made):
        log.warning(
            "%s runs through layers of this pack, which this ComfyUI leaves to its dynamic memory: "
            "it no longer takes disable_dynamic. LoRAs of other nodes may not reach it. If so, "
            "start ComfyUI with --disable-dynamic-vram or set FLUX_HOTSWAP_ENGINE=bf16, and report "
            "it.",
            name,
        )
    return made


def in_memory(patcher: ModelPatcher) -> str:
    """Return what the report adds about a model that `with_layers` warned of; nothing of others."""
    from .stored_linear import StoredLinear

    ours = any(isinstance(module, StoredLinear) for module in patcher.model.modules())
    if not (ours and is_dynamic(patcher)):
        return ""
    return "; this ComfyUI moves its weights in a way that is new to this pack, see the log"


def is_dynamic(patcher: ModelPatcher) -> bool:
    """Whether ComfyUI moves the weights of a model while it runs, with its own layers' help."""
    told: Any = getattr(patcher, "is_dynamic", None)  # newer versions have it
    return told is not None and bool(told())


def checked(patcher: ModelPatcher | None, name: str) -> ModelPatcher:
    """Return a model that ComfyUI made, if it is a FLUX.1 model.

    Raises:
        CheckpointError: it is none.
    """
    if patcher is None or patcher.model.model_config.unet_config.get("image_model") != "flux":
        raise unknown(name)
    return patcher


def unknown(name: str, why: str = "") -> CheckpointError:
    """Return that a file is none that this ComfyUI runs; `why` is what ComfyUI says of it."""
    return CheckpointError(
        f"{name} does not hold a FLUX.1 model that this ComfyUI knows{why}; "
        "choose flux1-dev or flux1-schnell"
    )


def signature(function: Any) -> set[str]:
    """Return the names of a function's parameters."""
    return set(inspect.signature(function).parameters)
