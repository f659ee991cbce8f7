"""flux-hotswap: hosted FLUX fine-tunes on your own GPU, in ComfyUI."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .nodes.extension import FluxHotswapExtension

WEB_DIRECTORY = "./js"

__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]


async def comfy_entrypoint() -> FluxHotswapExtension:
    """Hand the nodes to ComfyUI. The import waits until here so that importing costs nothing."""
    from .nodes.extension import FluxHotswapExtension

    return FluxHotswapExtension()
