"""What the pack adds to ComfyUI's server: a look at every prompt, and one HTTP route.

The route says what a LoRA source means, and whether its file is here, for the lines in the graph
editor. It reads the text and the index of the store: nothing goes
to the network, nothing is written, no token and no path outside of the loras folders is told.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .refusals import reader

if TYPE_CHECKING:
    from aiohttp import web
    from comfy_api.latest import io

    from ..lora_fetch.source import Source

FOLDER: Final = Path(__file__).parents[1]
"""The pack's own."""

SOURCE_ROUTE: Final = "/flux_hotswap/source"
MAX_TEXT: Final = 4096
"""Longest source that is looked at, in characters; longer ones are data: URIs."""

MAX_BODY: Final = 8 * MAX_TEXT
"""Bytes that are read of a request: a character may take six, as `\\u00e9` does."""

log = logging.getLogger(__name__)


def register(classes: Mapping[str, type[io.ComfyNode]]) -> Path | None:
    """Add to ComfyUI's server, once; where no server runs there is nothing to do.

    Args:
        classes: our nodes by their id.

    Returns:
        The folder of another copy of the pack that was here first, and keeps the server.
    """
    # Looked up, not imported: ComfyUI has loaded it before any pack, and who only wants the list of
    # nodes needs no server.
    module = sys.modules.get("server")
    server = getattr(getattr(module, "PromptServer", None), "instance", None)
    if server is None:
        return None
    for route in server.routes:
        if getattr(route, "path", None) == SOURCE_ROUTE:
            first = Path(inspect.getfile(route.handler)).parents[1]
            return None if first == FOLDER else first
    server.routes.post(SOURCE_ROUTE)(answer)
    server.add_on_prompt_handler(reader(classes))
    return None


async def answer(request: web.Request) -> web.Response:
    """Answer `{"source": text}` with what `about` tells of it."""
    from aiohttp import web

    if is_cross_site(request.headers.get("Sec-Fetch-Site", "")):
        return web.json_response({"error": "cross-site requests are refused"}, status=403)
    if request.content_type != "application/json":  # what a form of another site cannot send
        return web.json_response({"error": "send application/json"}, status=415)
    if (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
        return web.json_response({"error": "send JSON in UTF-8"}, status=400)
    try:
        body = json.loads(await _read(request))
    except (ValueError, RecursionError):
        body = None
    text = body.get("source") if isinstance(body, dict) else None
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        wanted = f'send {{"source": text}} of at most {MAX_TEXT} characters'
        return web.json_response({"error": wanted}, status=400)
    return web.json_response(await asyncio.to_thread(about, text))


async def _read(request: web.Request) -> bytes:
    """Return a body; nothing, which is no JSON, of one that is too long."""
    raw = b""
    while len(raw) <= MAX_BODY and (piece := await request.content.read(MAX_BODY)):
        raw += piece
    return raw if len(raw) <= MAX_BODY else b""


def is_cross_site(fetch_site: str) -> bool:
    """Whether ComfyUI refuses a request that a browser marks so; 0.3.75 does not do it itself."""
    from comfy.cli_args import args

    return fetch_site == "cross-site" and not args.enable_cors_header


def about(text: str) -> dict[str, Any]:
    """Return what a LoRA source means.

    Returns:
        `{"error": why}`, or the kind of source, its name without secrets, and its file below the
        loras folder with the size in bytes, both None where it is not here.
    """
    from ..errors import FetchError
    from ..lora_fetch.parser import parse

    try:
        source = parse(text)
    except FetchError as error:
        return {"error": str(error)}
    try:
        file, size = _file(source)
    except (FetchError, OSError) as error:
        log.warning("The store of LoRAs cannot be read: %s", error)
        file, size = None, None
    return {
        "kind": source.kind,
        "name": source.shown().removeprefix(source.prefix),
        "file": file,
        "size": size,
    }


def _file(source: Source) -> tuple[str, int] | tuple[None, None]:
    """Return the file of a source below a loras folder and its size, without reading it."""
    import folder_paths

    from ..engine.fetching import open_store
    from ..lora_fetch import store as stores
    from ..lora_fetch.services.local import LocalFile

    if isinstance(source, LocalFile):
        path = folder_paths.get_full_path("loras", source.name)
        return (None, None) if path is None else (source.name, Path(path).stat().st_size)
    store = open_store()
    entry = store.entries().get(stores.key_of(source))
    if entry is None or not store.path(entry).is_file():
        return None, None
    return f"{stores.FOLDER}/{entry.file}", entry.size
