"""Reading a LoRA file: its modules under names that the core knows, or why it cannot be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import LoraError
from ..ops.lora.dylora import block_of, multiply_alphas
from ..ops.lora.family import UNKNOWN
from ..ops.lora.fit import Fit
from ..ops.lora.names import sources
from ..ops.lora.others import other_model, other_use
from ..ops.lora.parts import Module, sizes_of, split
from ..ops.lora.peft import CONFIG, alphas_of
from ..ops.lora.whole import not_finite

if TYPE_CHECKING:
    from ..lora_fetch.fetch import Fetched

_MOST: Final = 2**20
"""Bytes of settings; they have some thousands."""


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

    from ..files import header

    raw: Any = comfy.utils.load_torch_file(str(path), safe_load=True)
    metadata = header.read(path).metadata
    try:
        origins = sources(raw)
    except ValueError as error:
        raise LoraError(
            f"{path.name} cannot be used: {error}. Ask its author for a whole file"
        ) from error
    fit = Fit.of(raw)
    modules = split({target: raw[name] for target, name in origins.items()}, origins)
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
    import torch

    try:
        alphas = alphas_of(modules.values(), metadata, config_of(path))
    except LoraError as error:
        raise LoraError(
            f"{path.name} cannot be used: of its alphas, {error}. Ask its author for a file with "
            "its alphas in it"
        ) from error
    for name, alpha in alphas.values.items():
        modules[name].parts["alpha"] = torch.tensor(alpha)
    block = block_of(metadata)
    if block is not None:
        multiply_alphas(modules.values(), block)
    return alphas.notes


def state_of(found: Fetched) -> str:
    """Return a text that is another one when what is made of a file is."""
    config = config_of(found.path)
    if config is None:
        return found.sha256
    return f"{found.sha256} {sha256(config.encode()).hexdigest()}"


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


def _refuse_others(
    name: str, fit: Fit, modules: Mapping[str, Module], metadata: Mapping[str, str]
) -> None:
    """Refuse a file of another model, of which a part may fit.

    Raises:
        LoraError: it is one.
    """
    sizes = sizes_of(modules.values())
    other = other_model(fit.names, metadata, sizes)
    if other is None and not fit.family.flux and fit.family is not UNKNOWN:
        other = fit.family.name
    if other is not None:
        raise LoraError(
            f"{name}: it is made for {other}, not for FLUX.1. Choose a LoRA for FLUX.1 dev or "
            "schnell."
        )
    wanted = other_use(sizes)
    if wanted is not None:
        raise LoraError(
            f"{name} needs {wanted}, which this pack does not give. Choose a LoRA that "
            "works without."
        )
