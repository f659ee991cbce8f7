"""The same API inside ComfyUI, at `/hotswap`, where an administrator switches it on.

One process less, and what goes with that: nobody starts ComfyUI again when it dies, and the API is
away as long as it is. Cog's routes are not there: they want the root for themselves.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import Final

from aiohttp import web

from ..errors import HotswapError, SettingsError
from .app import Where, build, tell_of_address
from .options import LOCAL, LOOPBACK, WILDCARDS, is_loopback, read_options, words_of
from .state import claimed

PATH: Final = "/hotswap"
STATE: Final = "flux_hotswap_api"
"""Folder below ComfyUI's user folder."""

log = logging.getLogger(__name__)


async def mount(
    app: web.Application, given: str, listen: str, port: int, user: Path, *, tls: bool = False
) -> None:
    """Add the API to ComfyUI's server. Where that fails ComfyUI starts all the same.

    Args:
        app: ComfyUI's, before it starts.
        given: 1, or options as `python -m hosted_api` takes them.
        listen: the addresses where ComfyUI listens, with commas.
        port: on which port.
        user: ComfyUI's user folder.
        tls: whether it speaks https.
    """
    host, near = reached(listen)
    url = f"{'https' if tls else 'http'}://{near}:{port}"
    try:
        alone = given.lower() in ("1", "true", "yes", "on")
        words = [] if alone else words_of("its options", given)
        # ComfyUI's address decides whether tokens are needed.
        options = read_options(["--state", str(user / STATE), *words, "--host", host])
        if options.comfyui or options.start or options.workers != LOCAL:
            raise SettingsError(
                "--comfyui, --start and --workers are for an API of its own; remove them inside "
                "ComfyUI."
            )
        with contextlib.ExitStack() as failing:
            failing.enter_context(claimed(options.state))
            inside = await build(replace(options, comfyui=(url,)), Where(f"{url}{PATH}"))
            held = failing.pop_all()
    except (HotswapError, SystemExit) as error:
        log.error("flux-hotswap: the API is not there: %s", error)
        return

    async def let_go(_: web.Application) -> None:
        held.close()

    inside.on_cleanup.append(let_go)
    app.router.add_get(PATH, lead_to_page)
    app.add_subapp(PATH, inside)
    tell_of_address(options, url)
    log.info("flux-hotswap: the API is at %s%s/v1", url, PATH)


def reached(listen: str) -> tuple[str, str]:
    """Return the address that lets most in, and the host by which this machine itself gets in.

    Args:
        listen: addresses, with commas.
    """
    hosts = [host.strip() for host in listen.split(",")]
    widest = next((host for host in hosts if not is_loopback(host)), hosts[0])
    near = next((host for host in hosts if is_loopback(host)), hosts[0])
    every, every6 = WILDCARDS
    if every in hosts:
        near = LOOPBACK
    elif near == every6:
        near = "::1"
    return widest, f"[{near}]" if ":" in near else near


async def lead_to_page(_: web.Request) -> web.Response:
    """Answer the address without its last slash: the page's files lie below it."""
    return web.Response(status=302, headers={"Location": f"{PATH.rpartition('/')[2]}/"})
