"""The pack's nodes, as ComfyUI asks for them."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
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

API_SWITCH: Final = "FLUX_HOTSWAP_API"
"""The variable that switches the hosted model's API on."""

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
            await _add_api()
            return list(NODES)
        log.warning(
            "flux-hotswap is installed twice: %s is used, and %s does nothing. Remove one of the "
            "two folders and restart ComfyUI.",
            first,
            FOLDER,
        )
        return []


async def _add_api() -> None:
    """Let ComfyUI's server answer as the hosted model too, where an administrator wants that."""
    module = sys.modules.get("server")  # not imported: see `register`
    server = getattr(getattr(module, "PromptServer", None), "instance", None)
    given = os.environ.get(API_SWITCH, "").strip()
    if server is None or given.lower() in ("", "0", "false", "no", "off"):
        return
    import folder_paths
    from comfy.cli_args import args

    from ..hosted_api.inside import mount

    user = Path(folder_paths.get_user_directory())
    tls = bool(args.tls_keyfile and args.tls_certfile)
    await mount(server.app, given, args.listen, args.port, user, tls=tls)
