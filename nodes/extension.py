"""The pack's nodes, as ComfyUI asks for them."""

from __future__ import annotations

import logging
from typing import Final

from comfy_api.latest import ComfyExtension, io

from ..gate.routes import FOLDER, register
from .fields import FluxHotswapFields
from .inputs import FluxHotswapInputs
from .latent import FluxHotswapLatent
from .loader import FluxHotswapLoader
from .lora import FluxHotswapLora
from .noise import FluxHotswapNoise
from .prompt import FluxHotswapPrompt
from .safety import FluxHotswapSafety
from .save import FluxHotswapSave
from .schedule import FluxHotswapSchedule

log = logging.getLogger(__name__)

NODES: Final = (
    FluxHotswapInputs,
    FluxHotswapFields,
    FluxHotswapLoader,
    FluxHotswapLora,
    FluxHotswapPrompt,
    FluxHotswapLatent,
    FluxHotswapSchedule,
    FluxHotswapNoise,
    FluxHotswapSafety,
    FluxHotswapSave,
)


class FluxHotswapExtension(ComfyExtension):
    """Everything the pack adds to ComfyUI."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return the node classes; the server can be added to now, and not after start-up.

        Of two copies the one that is loaded first works alone: nodes of both would be mixed.
        """
        first = register({node.define_schema().node_id: node for node in NODES})
        if first is None:
            return list(NODES)
        log.warning(
            "flux-hotswap is installed twice: %s is used, and %s does nothing. Remove one of the "
            "two folders and restart ComfyUI.",
            first,
            FOLDER,
        )
        return []
