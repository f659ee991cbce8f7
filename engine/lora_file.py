"""Reading a LoRA file: its modules under names that the core knows, or why it cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import LoraError
from ..ops.lora.family import UNKNOWN
from ..ops.lora.fit import Fit
from ..ops.lora.names import adapter_alphas, convert
from ..ops.lora.others import other_model
from ..ops.lora.parts import Module, sizes_of, split
from ..ops.lora.whole import not_finite


@dataclass(frozen=True)
class LoraFile:
    """What a file holds.

    Attributes:
        modules: by the names that the core knows them by.
        fit: what is known of it before it meets a model.
    """

    modules: Mapping[str, Module]
    fit: Fit


def read(path: Path) -> LoraFile:
    """Read a file.

    Raises:
        HotswapError: it cannot be used.
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
    fit = Fit.of(raw)
    modules = split(state, dict(zip(state, raw, strict=True)))
    _refuse_others(path.name, fit, modules, metadata)
    bad = not_finite(raw)
    if bad is not None:
        raise LoraError(
            f"{path.name} cannot be used: {bad} holds numbers that are infinite or none, as a "
            "training that went astray leaves them. Ask its author for another file"
        )
    for name, alpha in adapter_alphas(metadata, state).items():
        modules[name.removesuffix(".alpha")].parts["alpha"] = torch.tensor(alpha)
    return LoraFile(modules, fit)


def _refuse_others(
    name: str, fit: Fit, modules: Mapping[str, Module], metadata: Mapping[str, str]
) -> None:
    """Refuse a file of another model, of which a part may fit.

    Raises:
        LoraError: it is one.
    """
    other = other_model(fit.names, metadata, sizes_of(modules.values()))
    if other is None and not fit.family.flux and fit.family is not UNKNOWN:
        other = fit.family.name
    if other is not None:
        raise LoraError(
            f"{name}: it is made for {other}, not for FLUX.1. Choose a LoRA for FLUX.1 dev or "
            "schnell."
        )
