"""Reading a LoRA file: its tensors under names that the core knows, or why it cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LoraError
from ..ops.lora.family import UNKNOWN
from ..ops.lora.fit import Fit
from ..ops.lora.names import adapter_alphas, convert
from ..ops.lora.others import other_model
from ..ops.lora.parts import sizes_of, split

if TYPE_CHECKING:
    from torch import Tensor


def read(path: Path) -> tuple[dict[str, Tensor], Fit]:
    """Return a file's tensors under names that the core knows.

    Raises:
        HotswapError: the file cannot be used.
    """
    import comfy.utils
    import torch

    from ..files import header

    raw: Any = comfy.utils.load_torch_file(str(path), safe_load=True)
    metadata = header.read(path).metadata
    try:
        state = convert(raw)
    except ValueError as error:
        raise LoraError(
            f"{path.name} cannot be used: {error}. Ask its author for a whole file"
        ) from error
    fit = Fit.of(raw, state)
    _refuse_others(path.name, fit, state, metadata)
    alphas = adapter_alphas(metadata, state)
    state |= {name: torch.tensor(alpha) for name, alpha in alphas.items()}
    return state, fit


def _refuse_others(
    name: str, fit: Fit, state: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Refuse a file of another model, of which a part may fit.

    Raises:
        LoraError: it is one.
    """
    names = fit.originals.values()
    other = other_model(names, metadata, sizes_of(split(state, {}).values()))
    if other is None and not fit.family.flux and fit.family is not UNKNOWN:
        other = fit.family.name
    if other is not None:
        raise LoraError(
            f"{name}: it is made for {other}, not for FLUX.1. Choose a LoRA for FLUX.1 dev or "
            "schnell."
        )
