"""The same API inside ComfyUI, at `/hotswap`, where an administrator switches it on.

One process less, and what goes with that: nobody starts ComfyUI again when it dies, and the API is
away as long as it is. Cog's routes are not there: they want the root for themselves.
"""

from __future__ import annotations

import logging
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Final

from aiohttp import web

from ..errors import HotswapError, SettingsError
from .app import Where, build
from .options import LOCAL, read_options

PATH: Final = "/hotswap"
STATE: Final = "flux_hotswap_api"
"""Folder below ComfyUI's user folder."""

log = logging.getLogger(__name__)


async def mount(app: web.Application, given: str, host: str, port: int, user: Path) -> None:
    """Add the API to ComfyUI's server. Where that fails ComfyUI starts all the same.

    Args:
        app: ComfyUI's, before it starts.
        given: 1, or options as `python -m hosted_api` takes them.
        host: where ComfyUI listens.
        port: on which port.
        user: ComfyUI's user folder.
    """
    words = [] if given.lower() in ("1", "true", "yes", "on") else shlex.split(given)
    url = f"http://127.0.0.1:{port}"
    try:
        # ComfyUI's host decides whether tokens are needed.
        options = read_options(["--state", str(user / STATE), *words, "--host", host])
        if options.comfyui or options.start or options.workers != LOCAL:
            raise SettingsError(
                "--comfyui, --start and --workers are for an API of its own; remove them inside "
                "ComfyUI."
            )
        inside = await build(replace(options, comfyui=(url,)), Where(f"{url}{PATH}"))
    except (HotswapError, SystemExit) as error:
        log.error("flux-hotswap: the API is not there: %s", error)
        return
    app.router.add_get(PATH, lead_to_page)
    app.add_subapp(PATH, inside)
    log.info("flux-hotswap: the API is at %s%s/v1", url, PATH)


async def lead_to_page(_: web.Request) -> web.Response:
    """Answer the address without its last slash: the page's files lie below it."""
    return web.Response(status=302, headers={"Location": f"{PATH.rpartition('/')[2]}/"})
