"""Reading a LoRA file: its modules under names that the core knows, or why it cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from ...errors import LoraError
from ...files import header
from .dylora import block_of, multiply_alphas
from .family import UNKNOWN
from .fit import Fit
from .names import sources
from .others import other_model, other_use
from .parts import Module, split
from .peft import CONFIG, alphas_of
from .sizes import sizes_of
from .whole import not_finite

_MOST: Final = 2**20
"""Bytes of settings; they have some thousands."""

_SCALED: Final = {".lora_E": "an AdaLoRA", ".lora_diag": "a KaSA LoRA"}
"""What PEFT scales each rank with, and what it makes of a LoRA."""

_FLOATS: Final = ("F64", "F32", "F16", "BF16")
_SMALL: Final = ("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ")
_WHOLE: Final = ("I64", "I32", "I16", "I8", "U8", "BOOL")
_NUMBERS: Final = frozenset((*_FLOATS, *_SMALL, *_WHOLE))
"""Those that a tensor of a LoRA can be in, as the format calls them; alphas can be whole."""


@dataclass(frozen=True)
class LoraFile:
    """What a file holds.

    Attributes:
        modules: by the names that the core knows them by.
        fit: what is known of it before it meets a model.
    """

    modules: Mapping[str, Module]
    fit: Fit


def refuse_numbers(name: str, tensors: Mapping[str, header.Tensor]) -> None:
    """Refuse a file whose numbers cannot be computed with, before it is loaded.

    Args:
        name: of the file, for messages.
        tensors: as its head describes them.

    Raises:
        LoraError: it holds such.
    """
    for tensor, about in tensors.items():
        if about.dtype not in _NUMBERS:
            raise LoraError(
                f"{name} cannot be used: {tensor} holds numbers of a kind that LoRAs do not have "
                f"({about.dtype}). Ask its author for a file in bf16"
            )


def modules_of(name: str, raw: Mapping[str, Tensor]) -> dict[str, Module]:
    """Return a file's modules by the names that the core knows them by.

    Args:
        name: of the file, for messages.
        raw: its tensors.

    Raises:
        LoraError: two of its names mean the same tensor.
    """
    try:
        origins = sources(raw)
    except ValueError as error:
        raise LoraError(
            f"{name} cannot be used: {error}. Ask its author for a whole file"
        ) from error
    return split({target: raw[original] for target, original in origins.items()}, origins)


def checked(
    path: Path,
    raw: Mapping[str, Tensor],
    modules: Mapping[str, Module],
    metadata: Mapping[str, str],
) -> LoraFile:
    """Return what a file holds, once it is known to be sound and made for FLUX.1.

    Args:
        path: where it is; its settings may be beside it.
        raw: its tensors.
        modules: made of them; they are given the alphas that stand elsewhere.
        metadata: of its head.

    Raises:
        LoraError: it cannot be used.
    """
    fit = Fit.of(raw)
    _refuse_others(path.name, fit, modules, metadata)
    bad = not_finite(raw)
    if bad is not None:
        raise LoraError(
            f"{path.name} cannot be used: {bad} holds numbers that are infinite or none, as a "
            "training that went astray leaves them. Ask its author for another file"
        )
    notes = _add_alphas(path, modules, metadata)
    return LoraFile(modules, replace(fit, notes=tuple(notes)))


def _add_alphas(
    path: Path, modules: Mapping[str, Module], metadata: Mapping[str, str]
) -> list[str]:
    """Give modules the alphas that stand elsewhere; return what the user should know.

    Raises:
        LoraError: what stands there cannot be followed.
    """
    try:
        alphas = alphas_of(modules.values(), metadata, config_of(path))
    except LoraError as error:
        raise LoraError(
            f"{path.name} cannot be used: of its alphas, {error}. Ask its author for a file with "
            "its alphas in it"
        ) from error
    for name, alpha in alphas.values.items():
        modules[name].parts["alpha"] = torch.tensor(alpha)
    for name, factor in alphas.factors.items():
        parts = modules[name].parts
        parts["lokr_w1"] = parts["lokr_w1"].to(torch.float32) * factor
    block = block_of(metadata)
    if block is not None:
        multiply_alphas(modules.values(), block)
    return alphas.notes


def config_of(path: Path) -> str | None:
    """Return the text of PEFT's settings beside a file; None if there is none that is its own.

    In a folder of many LoRAs nobody knows which one `adapter_config.json` belongs to.
    """
    own = path.with_suffix(f".{CONFIG}")
    shared = path.with_name(CONFIG)
    alone = (
        path.stem == "adapter_model" or len(list(islice(path.parent.glob("*.safetensors"), 2))) == 1
    )
    for config in (own, shared) if alone else (own,):
        if config.is_file():
            with config.open("rb") as file:
                return file.read(_MOST).decode("utf-8", errors="replace")
    return None


def other_model_of(
    fit: Fit, modules: Mapping[str, Module], metadata: Mapping[str, str]
) -> str | None:
    """Return the model that a file is made for if it is certainly not FLUX.1, else None."""
    other = other_model(fit.names, metadata, sizes_of(modules.values()))
    if other is None and not fit.family.flux and fit.family is not UNKNOWN:
        return fit.family.name
    return other


def _refuse_others(
    name: str, fit: Fit, modules: Mapping[str, Module], metadata: Mapping[str, str]
) -> None:
    """Refuse a file of another model, of which a part may fit.

    Raises:
        LoraError: it is one.
    """
    other = other_model_of(fit, modules, metadata)
    if other is not None:
        raise LoraError(
            f"{name}: it is made for {other}, not for FLUX.1. Choose a LoRA for FLUX.1 dev or "
            "schnell."
        )
    for ending, kind in _SCALED.items():
        scaled = next((own for own in fit.names if own.endswith(ending)), None)
        if scaled is not None:
            raise LoraError(
                f"{name} is {kind} of PEFT, whose scale of each rank ({scaled}) is not read. Ask "
                "its author for a plain LoRA."
            )
    wanted = other_use(sizes_of(modules.values()))
    if wanted is not None:
        raise LoraError(
            f"{name} needs {wanted}, which this pack does not give. Choose a LoRA that "
            "works without."
        )
