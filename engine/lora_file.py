"""Reading a LoRA file inside ComfyUI."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ops.lora.file import LoraFile, checked, config_of, modules_of, refuse_numbers

if TYPE_CHECKING:
    from ..lora_fetch.fetch import Fetched


def read(path: Path) -> LoraFile:
    """Read a file.

    Raises:
        HotswapError: it cannot be used.
    """
    import comfy.utils

    from ..files import header

    head = header.read(path)
    refuse_numbers(path.name, head.tensors)
    raw: Any = comfy.utils.load_torch_file(str(path), safe_load=True)
    return checked(path, raw, modules_of(path.name, raw), head.metadata)


def state_of(found: Fetched) -> str:
    """Return a text that is another one when what is made of a file is."""
    config = config_of(found.path)
    if config is None:
        return found.sha256
    return f"{found.sha256} {sha256(config.encode()).hexdigest()}"
